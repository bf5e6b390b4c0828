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
