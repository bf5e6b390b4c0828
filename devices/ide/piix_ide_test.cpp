#include "devices/ide/piix_ide.hpp"

#include <catch2/catch.hpp>

#include <random>

#include "base/log.hpp"
#include "devices/ide/ide_test_rig.hpp"

using namespace whistler;
using namespace whistler::ide_test;

namespace {

/// Drives every register of the function with what `random` gives.
void step(Rig& rig, std::mt19937& random) {
  static constexpr std::array<std::uint8_t, 24> kCommands{0x20, 0x24, 0x25, 0x30, 0x34, 0x35, 0xC4, 0xC5,
                                                          0xC8, 0xCA, 0xA0, 0xA1, 0xEC, 0xEF, 0x06, 0xB0,
                                                          0xE7, 0x08, 0x90, 0x40, 0x91, 0xE8, 0xC6, 0x27};
  static constexpr std::array<std::uint8_t, 16> kPackets{0x28, 0xA8, 0xBE, 0xB9, 0x43, 0x46, 0x4A, 0x5A,
                                                         0x55, 0x03, 0x12, 0x1B, 0x51, 0x52, 0xAD, 0x25};
  const auto value = static_cast<unsigned>(random());
  switch (random() % 16) {
    case 0: rig.out(Rig::kCommand, value); break;
    case 1:
    case 2: rig.out(Rig::kCommand, kCommands[value % kCommands.size()]); break;
    case 3: rig.control(value % 8 == 0 ? value : 0); break;
    case 4: rig.bm(value % 16, value >> 8); break;
    case 5: rig.bm(0, value % 16); break;
    case 6:
      rig.prepare({{value & 0xFFFFF, (value >> 16) & 0xFFFF}, {value >> 8, kEot | (value & 0xFFFF)}});
      break;
    case 7:
      rig.packet({kPackets[value % kPackets.size()], (value >> 8) & 3, 0, 0, 0, (value >> 10) & 0xFF, 0, 0,
                  (value >> 18) & 7, (value >> 21) & 0xFF},
                 value & 0xFFFF, (value & 0x80) != 0);
      break;
    case 8: rig.ide.config_write(value % 256 & ~3U, 4, static_cast<std::uint32_t>(random())); break;
    case 9: rig.ide.config_write(kPciCommand, 2, 5); break;
    case 10:
      for (unsigned i = 0; i < value % 600; ++i) {
        static_cast<void>(rig.ide.command_block(0).read(0, 1U << (value % 3)));
      }
      break;
    case 11:
      for (unsigned i = 0; i < value % 600; ++i) {
        rig.ide.command_block(0).write(0, 1U << (value % 3), random());
      }
      break;
    case 12: static_cast<void>(rig.ide.command_block(value & 1).read(value % 8, 1)); break;
    case 13: rig.address48(value % 2100, value >> 24); break;
    default: rig.out(value % 7, (value & 0x100) != 0 ? value >> 12 : value % 4); break;
  }
}

}  // namespace

TEST_CASE("function_has_the_ids_of_a_piix3", "[ide]") {
  PairRig p;
  auto& ide = p.rig.ide;
  REQUIRE(ide.config_read(0, 4) == 0x70108086);
  REQUIRE(ide.config_read(8, 4) == 0x01018000);
  REQUIRE(ide.config_read(6, 2) == 0x0280);
  REQUIRE(ide.config_read(kPciInterruptPin, 1) == 0);
  ide.config_write(0x20, 4, 0xFFFFFFFF);
  REQUIRE(ide.config_read(0x20, 4) == 0xFFFFFFF1);
  ide.config_write(0x40, 4, 0x80008000);
  REQUIRE(ide.config_read(0x40, 4) == 0x80008000);
}

TEST_CASE("piix4_function_has_its_ids_and_ultra_dma_registers", "[ide]") {
  GuestMemory memory;
  IrqRecorder irqs;
  PiixIde ide(memory, IrqLine(irqs, 14), IrqLine(irqs, 15), {}, PiixIdeModel::kPiix4);
  REQUIRE(ide.config_read(0, 4) == 0x71118086);
  REQUIRE(ide.config_read(8, 4) == 0x01018001);
  REQUIRE(ide.config_read(0x48, 4) == 0);
  ide.config_write(0x48, 4, 0xFFFFFFFF);
  REQUIRE(ide.config_read(0x48, 4) == 0x3333000F);
  ide.reset();
  REQUIRE(ide.config_read(0x48, 4) == 0);
}

TEST_CASE("piix3_function_has_no_ultra_dma_registers", "[ide]") {
  PairRig p;
  p.rig.ide.config_write(0x48, 4, 0xFFFFFFFF);
  REQUIRE(p.rig.ide.config_read(0x48, 4) == 0);
}

TEST_CASE("bus_master_registers_keep_their_bits", "[ide]") {
  PairRig p;
  auto& bar = *p.rig.ide.bars()[4].handler;
  bar.write(4, 4, 0x12345677);
  REQUIRE(bar.read(4, 4) == 0x12345674);
  bar.write(12, 4, 0xABCDEF00);
  REQUIRE(bar.read(12, 4) == 0xABCDEF00);
  bar.write(2, 1, 0x61);
  REQUIRE(bar.read(2, 1) == 0x60);
  bar.write(0, 1, 0xFE);
  REQUIRE(bar.read(0, 1) == 0x08);
  p.rig.out(Rig::kCommand, 0xE7);
  REQUIRE(bar.read(2, 1) == 0x64);
  bar.write(2, 1, 0x04);
  REQUIRE(bar.read(2, 1) == 0x00);
  REQUIRE(p.rig.irq());  // the latch is cleared, the wire is not
}

TEST_CASE("dma_stopped_in_flight_ends_with_the_transfer", "[ide]") {
  PairRig p;
  p.disk.parked = true;
  p.rig.address(0, 1);
  REQUIRE(p.rig.dma(0xC8, true, {{0x1000, 0x400 | kEot}}) == 0x01);
  p.rig.bm(0, 0);
  REQUIRE(p.rig.bm(2) == 0x01);
  p.disk.release();
  REQUIRE(p.rig.bm(2) == 0x04);
  REQUIRE(p.rig.in(Rig::kStatus) == 0x50);
}

TEST_CASE("drain_ends_when_nothing_is_in_flight", "[ide]") {
  PairRig p;
  p.disk.parked = true;
  p.rig.out(Rig::kCommand, 0xE7);
  bool drained = false;
  spawn(p.rig.ide.drain(), [&] { drained = true; });
  REQUIRE_FALSE(drained);
  REQUIRE_FALSE(p.rig.ide.load(StateReader(p.rig.saved())).has_value());
  p.disk.release();
  REQUIRE(drained);
  REQUIRE(p.rig.in(Rig::kStatus) == 0x50);
}

TEST_CASE("ide_reset_equals_a_fresh_one", "[ide]") {
  PairRig p;
  p.rig.ide.config_write(kPciCommand, 2, 0);
  const auto fresh = p.rig.saved();
  std::mt19937 random(7);
  for (int i = 0; i < 500; ++i) {
    step(p.rig, random);
  }
  p.rig.ide.reset();
  REQUIRE(p.rig.saved() == fresh);
  REQUIRE_FALSE(p.rig.irq());
}

TEST_CASE("ide_state_survives_save_and_load_amid_a_transfer", "[ide]") {
  PairRig p;
  number_sectors(p.disk.inner.bytes());
  p.rig.address(4, 2);
  p.rig.out(Rig::kCommand, 0x20);
  REQUIRE(p.rig.data() == 0x1004);
  const auto saved = p.rig.saved();
  for (int i = 1; i < 256; ++i) {
    static_cast<void>(p.rig.data());
  }
  p.rig.out(Rig::kCommand, 0x08);
  p.rig.control(0x04);
  REQUIRE_FALSE(p.rig.irq());

  REQUIRE(p.rig.ide.load(StateReader(saved)));

  REQUIRE(p.rig.saved() == saved);
  REQUIRE(p.rig.irq());
  for (int i = 1; i < 256; ++i) {
    static_cast<void>(p.rig.data());
  }
  REQUIRE(p.rig.data() == 0x1005);
}

TEST_CASE("ide_state_of_other_drives_is_refused", "[ide]") {
  PairRig p;
  TestDisk disk(kDiskBytes);
  Rig other{disk_config(disk)};
  REQUIRE_FALSE(other.ide.load(StateReader(p.rig.saved())).has_value());
  REQUIRE_FALSE(p.rig.ide.load(StateReader(StateBytes{1, 2, 3})).has_value());
}

TEST_CASE("hostile_ide_states_never_crash", "[ide]") {
  set_log_sink([](LogLevel, std::string_view) {});
  PairRig p;
  std::mt19937 random(11);
  p.rig.address(4, 20);
  p.rig.out(Rig::kCommand, 0xC4);
  for (int i = 0; i < 3000; ++i) {
    auto bytes = p.rig.saved();
    for (unsigned n = random() % 4 + 1; n != 0; --n) {
      bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
    }
    static_cast<void>(p.rig.ide.load(StateReader(bytes)));
    for (int k = 0; k < 4; ++k) {
      step(p.rig, random);
    }
  }
  set_log_sink({});
  SUCCEED("under the sanitizers");
}

TEST_CASE("random_register_accesses_never_crash", "[ide]") {
  set_log_sink([](LogLevel, std::string_view) {});
  PairRig p;
  std::mt19937 random(42);
  for (int i = 0; i < 40000; ++i) {
    if (i % 50 == 0) {
      p.disk.parked = random() % 2 == 0;
      p.disc.parked = random() % 2 == 0;
    }
    step(p.rig, random);
    if (random() % 8 == 0) {
      p.disk.release();
      p.disc.release();
    }
    if (i % 4000 == 3999) {
      p.rig.ide.reset();  // with requests in flight, too
    }
  }
  p.disk.parked = p.disc.parked = false;
  p.disk.release();
  p.disc.release();
  p.rig.ide.reset();
  p.rig.out(Rig::kDevice, 0);
  p.rig.out(Rig::kCommand, 0xEC);
  set_log_sink({});
  REQUIRE(p.rig.in(Rig::kStatus) == 0x58);
}
