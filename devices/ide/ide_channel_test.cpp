#include "devices/ide/ide_channel.hpp"

#include <catch2/catch.hpp>

#include <random>

#include "devices/ide/ide_test_rig.hpp"

using namespace whistler;
using namespace whistler::ide_test;

TEST_CASE("channel_without_drives_reads_zero", "[ide]") {
  PairRig p;
  p.rig.out(Rig::kCommand, 0xEC, 1);
  p.rig.out(Rig::kCount, 0x55, 1);
  p.rig.out(Rig::kDevice, 0xB0, 1);
  for (unsigned reg = 0; reg < 8; ++reg) {
    REQUIRE(p.rig.in(reg, 1) == 0);
  }
  REQUIRE(p.rig.ide.control_block(1).read(0, 1) == 0);
  REQUIRE_FALSE(p.rig.irqs.level(15));
}

TEST_CASE("absent_slave_has_status_zero", "[ide]") {
  TestDisk disk(kDiskBytes);
  Rig rig{disk_config(disk)};
  rig.out(Rig::kDevice, 0x10);
  rig.out(Rig::kCount, 0x55);
  REQUIRE(rig.in(Rig::kCount) == 0x55);
  REQUIRE(rig.in(Rig::kDevice) == 0xB0);
  REQUIRE(rig.in(Rig::kStatus) == 0);
  rig.out(Rig::kCommand, 0xEC);
  REQUIRE(rig.in(Rig::kStatus) == 0);
  REQUIRE_FALSE(rig.irq());
}

TEST_CASE("diagnostic_selects_the_master_and_shows_signatures", "[ide]") {
  PairRig p;
  p.rig.out(Rig::kDevice, 0x10);
  p.rig.out(Rig::kMid, 0x99);
  p.rig.out(Rig::kCommand, 0x90);
  REQUIRE(p.rig.irq());
  REQUIRE((p.rig.in(Rig::kDevice) & 0x10) == 0);
  REQUIRE(p.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(p.rig.in(Rig::kError) == 0x01);
  REQUIRE(p.rig.in(Rig::kMid) == 0x00);
  p.rig.out(Rig::kDevice, 0x10);
  REQUIRE(p.rig.in(Rig::kMid) == 0x14);
  REQUIRE(p.rig.in(Rig::kHigh) == 0xEB);
  REQUIRE(p.rig.in(Rig::kStatus) == 0x00);
}

TEST_CASE("soft_reset_is_busy_and_leaves_signatures", "[ide]") {
  PairRig p;
  p.rig.address(0, 1);
  p.rig.out(Rig::kCommand, 0x20);
  p.rig.control(0x04);
  REQUIRE((p.rig.alternate() & 0x80) != 0);
  REQUIRE_FALSE(p.rig.irq());
  p.rig.out(Rig::kCommand, 0xEC);
  p.rig.control(0x00);
  REQUIRE(p.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(p.rig.in(Rig::kCount) == 1);
  REQUIRE(p.rig.in(Rig::kMid) == 0);
}

TEST_CASE("nien_holds_the_interrupt_back", "[ide]") {
  PairRig p;
  p.rig.control(0x02);
  p.rig.out(Rig::kCommand, 0xE7);
  REQUIRE_FALSE(p.rig.irq());
  REQUIRE(p.rig.bm(2) == 0);
  p.rig.control(0x00);
  REQUIRE(p.rig.irq());
  REQUIRE(p.rig.alternate() == 0x50);
  REQUIRE(p.rig.irq());
  REQUIRE(p.rig.in(Rig::kStatus) == 0x50);
  REQUIRE_FALSE(p.rig.irq());
}

TEST_CASE("hob_shows_what_was_written_before", "[ide]") {
  PairRig p;
  p.rig.out(Rig::kLow, 0x12);
  p.rig.out(Rig::kLow, 0x34);
  REQUIRE(p.rig.in(Rig::kLow) == 0x34);
  p.rig.control(0x80);
  REQUIRE(p.rig.in(Rig::kLow) == 0x12);
  p.rig.out(Rig::kMid, 0);  // any write ends it
  REQUIRE(p.rig.in(Rig::kLow) == 0x34);
}

TEST_CASE("command_in_flight_is_busy_until_the_host_is_done", "[ide]") {
  PairRig p;
  p.disk.parked = true;
  p.rig.out(Rig::kCommand, 0xE7);
  REQUIRE(p.rig.in(Rig::kStatus) == 0xD0);
  REQUIRE_FALSE(p.rig.irq());
  p.rig.out(Rig::kDevice, 0x10);  // nobody listens while busy
  REQUIRE((p.rig.in(Rig::kDevice) & 0x10) == 0);
  p.disk.release();
  REQUIRE(p.rig.irq());
  REQUIRE(p.rig.in(Rig::kStatus) == 0x50);
}

TEST_CASE("reset_in_flight_waits_busy_for_the_host", "[ide]") {
  PairRig p;
  p.disk.parked = true;
  p.rig.address(3, 1);
  static_cast<void>(p.rig.dma(0xCA, false, {{0x1000, 0x200 | kEot}}));
  p.rig.control(0x04);
  p.rig.control(0x00);
  REQUIRE((p.rig.in(Rig::kStatus) & 0x80) != 0);
  p.rig.out(Rig::kCommand, 0xEC);
  REQUIRE((p.rig.in(Rig::kStatus) & 0x80) != 0);
  p.disk.release();
  REQUIRE(p.rig.in(Rig::kStatus) == 0x50);
  REQUIRE_FALSE(p.rig.irq());
  p.disk.parked = false;
  p.rig.out(Rig::kCommand, 0xEC);
  REQUIRE(p.rig.in(Rig::kStatus) == 0x58);
}

TEST_CASE("packet_device_is_reset_in_flight", "[ide]") {
  PairRig p;
  p.disc.parked = true;
  p.rig.out(Rig::kDevice, 0x10);
  p.rig.packet({0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0});
  REQUIRE(p.rig.in(Rig::kStatus) == 0xD0);
  p.rig.out(Rig::kCommand, 0x08);
  REQUIRE(p.rig.in(Rig::kStatus) == 0x80);
  REQUIRE(p.rig.ide.cdrom(0, 1)->change_disc(nullptr).error().code == ErrorCode::kBusy);
  p.disc.release();
  REQUIRE(p.rig.in(Rig::kStatus) == 0x00);
  REQUIRE(p.rig.in(Rig::kMid) == 0x14);
}

TEST_CASE("run_of_data_accesses_equals_single_ones", "[ide]") {
  // Runs of all lengths, over the ends of DRQ blocks and of the command, and outside of any.
  std::mt19937 random(5);
  for (const unsigned width : {1U, 2U, 4U}) {
    PairRig single;
    PairRig many;
    number_sectors(single.disk.inner.bytes());
    number_sectors(many.disk.inner.bytes());
    for (int round = 0; round < 60; ++round) {
      static constexpr std::array<unsigned, 6> kCommands{0x20, 0x30, 0xC4, 0xC5, 0xEC, 0xE7};
      const unsigned command = kCommands[random() % kCommands.size()];
      const auto lba = random() % 1000;
      const auto count = random() % 20 + 1;
      for (PairRig* p : {&single, &many}) {
        p->rig.out(Rig::kCount, 4);
        p->rig.out(Rig::kCommand, 0xC6);  // 4 sectors a block
        p->rig.address(lba, static_cast<unsigned>(count));
        p->rig.out(Rig::kCommand, command);
      }
      for (int burst = 0; burst < 12; ++burst) {
        std::vector<std::uint8_t> bytes(random() % 1500 * width);
        for (auto& byte : bytes) {
          byte = static_cast<std::uint8_t>(random());
        }
        if (random() % 8 == 0) {
          single.rig.control(4), single.rig.control(0);
          many.rig.control(4), many.rig.control(0);
        }
        auto& one = single.rig.ide.command_block(0);
        auto& run = many.rig.ide.command_block(0);
        std::vector<std::uint8_t> got(bytes.size());
        std::vector<std::uint8_t> wanted(bytes.size());
        for (std::size_t at = 0; at < bytes.size(); at += width) {
          one.write(0, width, load_little(&bytes[at], width));
        }
        run.write_many(0, width, bytes);
        REQUIRE(many.rig.saved() == single.rig.saved());
        for (std::size_t at = 0; at < bytes.size(); at += width) {
          store_little(&wanted[at], width, one.read(0, width));
        }
        run.read_many(0, width, got);
        REQUIRE(got == wanted);
        REQUIRE(many.rig.saved() == single.rig.saved());
        REQUIRE(many.rig.irq() == single.rig.irq());
      }
      for (PairRig* p : {&single, &many}) {
        p->rig.control(4);
        p->rig.control(0);
      }
    }
    REQUIRE(many.disk.inner.bytes() == single.disk.inner.bytes());
  }
}
