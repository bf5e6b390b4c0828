#include "devices/ide/bus_master.hpp"

#include <catch2/catch.hpp>

#include "base/bytes.hpp"

using namespace whistler;

namespace {

constexpr std::uint32_t kEot = 0x80000000;

struct EngineRig {
  std::vector<std::uint8_t> ram = std::vector<std::uint8_t>(0x40000);
  GuestMemory memory;
  IrqRecorder irqs;
  BusMaster engine{memory, IrqLine(irqs, 0)};
  EngineRig() {
    memory.add(0, ram);
    engine.set_enabled(true);
  }
  void descriptor(unsigned index, std::uint32_t address, std::uint32_t word) {
    store_le<std::uint32_t>(&ram[index * 8], address);
    store_le<std::uint32_t>(&ram[index * 8 + 4], word);
  }
};

}  // namespace

TEST_CASE("plan_points_into_guest_memory_and_says_whether_more_follows", "[ide]") {
  EngineRig e;
  e.descriptor(0, 0x20000, 0x100);
  e.descriptor(1, 0x30000, 0x100 | kEot);
  const auto exact = e.engine.plan(0x200);
  REQUIRE(exact.outcome == DmaPlan::Outcome::kReady);
  REQUIRE(exact.pieces.size() == 2);
  REQUIRE(exact.pieces[1].iov_base == &e.ram[0x30000]);
  REQUIRE_FALSE(exact.more);
  REQUIRE(e.engine.plan(0x100).more);
  REQUIRE(e.engine.plan(0x180).more);
  REQUIRE(e.engine.plan(0x202).outcome == DmaPlan::Outcome::kTooShort);
}

TEST_CASE("plan_of_a_table_without_end_is_bounded", "[ide]") {
  EngineRig e;
  for (unsigned i = 0; i < 0x2000; ++i) {
    e.descriptor(i, 0x20000, 2);
  }
  const auto plan = e.engine.plan(0x10000);
  REQUIRE(plan.outcome == DmaPlan::Outcome::kTooShort);
  REQUIRE(plan.pieces.size() == 0x2000);
}

TEST_CASE("plan_beyond_ram_is_a_fault", "[ide]") {
  EngineRig e;
  e.descriptor(0, 0x3FF00, 0x200 | kEot);
  REQUIRE(e.engine.plan(0x100).outcome == DmaPlan::Outcome::kReady);
  REQUIRE(e.engine.plan(0x200).outcome == DmaPlan::Outcome::kFault);
  e.engine.set_enabled(false);
  REQUIRE(e.engine.plan(0x100).outcome == DmaPlan::Outcome::kNoBus);
}

TEST_CASE("engine_stopped_in_a_transfer_stays_active_to_its_end", "[ide]") {
  EngineRig e;
  bool started = false;
  e.engine.on_start([&] { started = true; });
  e.engine.write(0, BusMaster::kStart);
  REQUIRE(started);
  e.engine.begin();
  e.engine.write(0, 0);
  REQUIRE(e.engine.active());
  e.engine.end(true);
  REQUIRE_FALSE(e.engine.active());
}

TEST_CASE("interrupt_bit_latches_rising_edges", "[ide]") {
  EngineRig e;
  e.engine.set_intrq(true);
  REQUIRE(e.engine.read(2) == BusMaster::kInterrupt);
  e.engine.write(2, BusMaster::kInterrupt);
  e.engine.set_intrq(true);
  REQUIRE(e.engine.read(2) == 0);
  e.engine.set_intrq(false);
  e.engine.set_intrq(true);
  REQUIRE(e.engine.read(2) == BusMaster::kInterrupt);
  REQUIRE(e.irqs.raised(0) == 2);
}

TEST_CASE("pieces_are_taken_gathered_and_scattered_in_order", "[ide]") {
  std::array<std::uint8_t, 6> memory{1, 2, 3, 4, 5, 6};
  const std::array pieces{iovec{memory.data(), 2}, iovec{&memory[2], 4}};
  PieceCursor cursor(pieces);
  REQUIRE(cursor.take(3).size() == 2);
  const auto rest = cursor.take(100);
  REQUIRE(rest.size() == 1);
  REQUIRE(rest[0].iov_base == &memory[3]);
  REQUIRE(rest[0].iov_len == 3);
  std::array<std::uint8_t, 3> copy{};
  gather(pieces, copy);
  REQUIRE(copy == std::array<std::uint8_t, 3>{1, 2, 3});
  scatter(rest, copy);
  REQUIRE(memory == std::array<std::uint8_t, 6>{1, 2, 3, 1, 2, 3});
}
