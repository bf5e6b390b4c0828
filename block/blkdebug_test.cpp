#include "block/blkdebug.hpp"

#include <fmt/format.h>
#include <catch2/catch.hpp>

#include "block/memory.hpp"
#include "block/test_support.hpp"

using namespace whistler;

namespace {

BlkdebugRules rules_of(const std::string& config) {
  BlkdebugRules rules;
  REQUIRE(parse_blkdebug_config(config, rules));
  return rules;
}

/// The errno of a read of a sector, 0 if it succeeds. Memory answers at once.
int read_errno(BlockDevice& device, std::uint64_t offset) {
  std::array<std::uint8_t, 512> sector{};
  const iovec vec{sector.data(), sector.size()};
  int errnum = -1;
  spawn(device.readv(offset, {&vec, 1}),
        [&](const Result<void>& done) { errnum = done ? 0 : done.error().sys_errno; });
  return errnum;
}

}  // namespace

TEST_CASE("blkdebug_rule_is_active_only_after_its_event", "[blkdebug]") {
  BlkdebugDevice device(std::make_unique<MemoryBlockDevice>(4096),
                        rules_of("[inject-error]\nevent = \"l2_load\"\nerrno = \"28\"\nonce = \"on\"\n"));
  CHECK(read_errno(device, 0) == 0);
  device.debug_event(DebugEvent::kL2Load);
  CHECK(read_errno(device, 0) == 28);
  CHECK(read_errno(device, 0) == 0);
  device.debug_event(DebugEvent::kL2Load);
  CHECK(read_errno(device, 0) == 0);
}

TEST_CASE("blkdebug_rule_for_a_sector_leaves_others_alone", "[blkdebug]") {
  BlkdebugDevice device(std::make_unique<MemoryBlockDevice>(4096),
                        rules_of("[inject-error]\nevent = \"none\"\nsector = \"2\"\n"));
  CHECK(read_errno(device, 512) == 0);
  CHECK(read_errno(device, 1024) == 5);
  CHECK(read_errno(device, 1024) == 5);
}

TEST_CASE("blkdebug_flush_is_asked_about_only_if_something_was_changed", "[blkdebug]") {
  BlkdebugDevice device(std::make_unique<MemoryBlockDevice>(4096),
                        rules_of("[inject-error]\nevent = \"none\"\niotype = \"flush\"\n"));
  const auto errno_of = [](Task<Result<void>> task) {
    int errnum = -1;
    spawn(std::move(task), [&](const Result<void>& done) { errnum = done ? 0 : done.error().sys_errno; });
    return errnum;
  };
  CHECK(errno_of(device.flush()) == 0);
  CHECK(errno_of(device.write_zeroes(0, 512)) == 0);
  CHECK(errno_of(device.flush()) == 5);
  CHECK(errno_of(device.flush()) == 5);  // it has not been flushed
}

TEST_CASE("blkdebug_zeroes_less_than_its_unit_by_writing", "[blkdebug]") {
  BlkdebugRules rules = rules_of("[inject-error]\nevent = \"none\"\niotype = \"write\"\n");
  rules.zero_unit = 3 * 512;
  BlkdebugDevice device(std::make_unique<MemoryBlockDevice>(8192), rules);
  const auto errno_of = [&](std::uint64_t offset, std::uint64_t bytes) {
    int errnum = -1;
    spawn(device.write_zeroes(offset, bytes),
          [&](const Result<void>& done) { errnum = done ? 0 : done.error().sys_errno; });
    return errnum;
  };
  CHECK(errno_of(1536, 3072) == 0);
  CHECK(errno_of(1024, 2048) == 5);  // a head
  CHECK(errno_of(1536, 2048) == 5);  // a tail
  CHECK(errno_of(512, 512) == 5);
}

TEST_CASE("blkdebug_writes_to_one_block_of_its_alignment_wait_for_each_other", "[blkdebug]") {
  BlkdebugRules rules;
  REQUIRE(parse_blkdebug_options(Options{{"align", "4096"}}, rules));
  auto memory = std::make_unique<MemoryBlockDevice>(16384);
  auto& below = *memory;
  BlkdebugDevice device(std::move(memory), rules);
  struct Write {
    std::vector<std::uint8_t> bytes;
    iovec vec = {bytes.data(), bytes.size()};
    bool ended = false;
  };
  Write one{std::vector<std::uint8_t>(512, 1)};
  Write two{std::vector<std::uint8_t>(512, 2)};
  Write three{std::vector<std::uint8_t>(4096, 3)};
  Write across{std::vector<std::uint8_t>(4096, 4)};
  const auto start = [&](std::uint64_t offset, Write& write) {
    spawn(device.writev(offset, {&write.vec, 1}),
          [&](const Result<void>& done) { write.ended = done.has_value(); });
  };
  REQUIRE(device.add_breakpoint("pwritev_rmw_after_tail", "A"));
  start(512, one);
  REQUIRE(device.is_suspended("A"));
  start(1024, two);
  start(4096, three);   // another block: does not wait
  start(3584, across);  // both
  CHECK(three.ended);
  CHECK_FALSE((one.ended || two.ended || across.ended));
  REQUIRE(device.resume("A"));
  CHECK((one.ended && two.ended && across.ended));
  std::vector<std::uint8_t> content(16384);
  const iovec vec{content.data(), content.size()};
  spawn(below.readv(0, {&vec, 1}), [](const Result<void>& done) { REQUIRE(done.has_value()); });
  const auto expected = [](std::size_t at) {
    return at < 512 ? 0 : at < 1024 ? 1 : at < 1536 ? 2 : at < 3584 ? 0 : at < 7680 ? 4 : at < 8192 ? 3 : 0;
  };
  for (std::size_t at = 0; at < content.size(); ++at) {
    REQUIRE(content[at] == expected(at));
  }
}

TEST_CASE("blkdebug_refuses_an_alignment_that_cannot_be", "[blkdebug]") {
  for (const auto* align : {"3", "4095", "2147483648"}) {
    BlkdebugRules rules;
    const auto parsed = parse_blkdebug_options(Options{{"align", align}}, rules);
    REQUIRE_FALSE(parsed.has_value());
    CHECK(parsed.error().message == fmt::format("Cannot meet constraints with align {}", align));
  }
}

TEST_CASE("blkdebug_refuses_a_zero_unit_that_cannot_be", "[blkdebug]") {
  const auto ok = [](std::uint64_t unit) {
    BlkdebugRules rules;
    return parse_blkdebug_options({{"align", 512}, {"opt-write-zero", unit}}, rules);
  };
  CHECK(ok(0).has_value());
  CHECK(ok(0x7fff'fe00).has_value());
  for (const auto unit : {1000ULL, 0x8000'0000ULL, 0x7fff'ffff'ffff'ffffULL}) {
    const auto refused = ok(unit);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().message == fmt::format("Cannot meet constraints with opt-write-zero {}", unit));
  }
}

TEST_CASE("blkdebug_states_choose_between_rules", "[blkdebug]") {
  BlkdebugDevice device(
      std::make_unique<MemoryBlockDevice>(4096),
      rules_of(
          "[inject-error]\nevent = \"l1_update\"\nstate = \"2\"\n\n[set-state]\nevent = \"l2_load\"\nstate = "
          "\"1\"\nnew_state = \"2\"\n"));
  device.debug_event(DebugEvent::kL1Update);
  CHECK(read_errno(device, 0) == 0);
  device.debug_event(DebugEvent::kL2Load);
  device.debug_event(DebugEvent::kL1Update);
  CHECK(read_errno(device, 0) == 5);
}

TEST_CASE("blkdebug_config_with_an_unknown_event_is_refused", "[blkdebug]") {
  BlkdebugRules rules;
  CHECK(parse_blkdebug_config("[inject-error]\nevent = \"foo\"\n", rules).error().message ==
        "invalid parameter value: foo");
  CHECK(parse_blkdebug_config("[bad]\n", rules).error().message == "There is no option group 'bad'");
}
