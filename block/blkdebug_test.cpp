#include "block/blkdebug.hpp"

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
