#include "devices/ide/ide_channel.hpp"

#include <catch2/catch.hpp>

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
