#include "devices/ide/atapi_cdrom.hpp"

#include <catch2/catch.hpp>

#include "devices/ide/ide_test_rig.hpp"

using namespace whistler;
using namespace whistler::ide_test;

namespace {

constexpr std::size_t kBlock = 2048;
constexpr std::size_t kBlocks = 300;

struct CdRig {
  TestDisk disc{kBlocks * kBlock - 1000};  // the last block is not whole
  Rig rig{cdrom_config(&disc)};
  AtapiCdrom& drive = *rig.ide.cdrom(0, 0);
  CdRig() { number_sectors(disc.inner.bytes(), kBlock); }

  /// Reads a packet's data burst by burst; each must be of `limit` bytes but the last.
  std::vector<std::uint8_t> read_bursts(std::size_t bytes, std::size_t limit) {
    std::vector<std::uint8_t> all;
    while (all.size() < bytes) {
      REQUIRE(rig.irq());
      REQUIRE(rig.in(Rig::kStatus) == 0x58);
      REQUIRE(rig.in(Rig::kCount) == 0x02);
      const std::size_t burst = rig.in(Rig::kMid) | (std::size_t{rig.in(Rig::kHigh)} << 8);
      REQUIRE(burst == std::min(limit, bytes - all.size()));
      const auto part = rig.read_bytes(burst);
      all.insert(all.end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(burst));
    }
    REQUIRE(rig.irq());
    REQUIRE(rig.in(Rig::kStatus) == 0x50);
    REQUIRE(rig.in(Rig::kCount) == 0x03);
    return all;
  }
  void require_sense(unsigned expected) {
    REQUIRE(rig.irq());
    REQUIRE((rig.in(Rig::kStatus) & 0xC9) == 0x41);
    REQUIRE(rig.in(Rig::kError) == (expected >> 16) << 4);
    REQUIRE(rig.sense() == expected);
  }
};

}  // namespace

TEST_CASE("packet_device_shows_its_signature", "[ide][atapi]") {
  CdRig c;
  for (const unsigned command : {0xECU, 0x20U}) {
    c.rig.out(Rig::kMid, 0);
    c.rig.out(Rig::kHigh, 0);
    c.rig.out(Rig::kCommand, command);
    REQUIRE(c.rig.in(Rig::kStatus) == 0x51);
    REQUIRE(c.rig.in(Rig::kError) == 0x04);
    REQUIRE(c.rig.in(Rig::kMid) == 0x14);
    REQUIRE(c.rig.in(Rig::kHigh) == 0xEB);
  }
  c.rig.out(Rig::kCommand, 0x08);
  REQUIRE(c.rig.in(Rig::kStatus) == 0x00);
  REQUIRE(c.rig.in(Rig::kError) == 0x01);
  c.rig.out(Rig::kCommand, 0xA1);
  const auto page = c.rig.read_bytes(512);
  REQUIRE(load_le<std::uint16_t>(page.data()) == 0x85C0);
  REQUIRE(page[55] == 'M');
}

TEST_CASE("packet_read_by_pio_keeps_to_the_byte_limit", "[ide][atapi]") {
  CdRig c;
  c.rig.out(Rig::kFeatures, 0);
  c.rig.out(Rig::kMid, 5120 & 0xFF);
  c.rig.out(Rig::kHigh, 5120 >> 8);
  c.rig.out(Rig::kCommand, 0xA0);
  REQUIRE(c.rig.in(Rig::kStatus) == 0x58);
  REQUIRE(c.rig.in(Rig::kCount) == 0x01);
  REQUIRE_FALSE(c.rig.irq());
  c.rig.write_bytes(std::array<std::uint8_t, 12>{0x28, 0, 0, 0, 0, 0, 0, 0, 100, 0});
  const auto data = c.read_bursts(100 * kBlock, 5120);
  REQUIRE(std::equal(data.begin(), data.end(), c.disc.inner.bytes().begin()));
}

TEST_CASE("packet_read_with_odd_and_extreme_limits_works", "[ide][atapi]") {
  CdRig c;
  c.rig.packet({0x28, 0, 0, 0, 0, 2, 0, 0, 3, 0}, 4095);
  REQUIRE(c.read_bursts(3 * kBlock, 4094)[kBlock] == 0x03);
  c.rig.packet({0xA8, 0, 0, 0, 0, 2, 0, 0, 0, 40, 0}, 0xFFFF);
  REQUIRE(c.read_bursts(40 * kBlock, 0xFFFE)[39 * kBlock] == 2 + 39);
  c.rig.packet({0x28, 0, 0, 0, 0, 2, 0, 0, 1, 0}, 1);
  REQUIRE(c.read_bursts(kBlock, 2)[1] == 0x10);
  c.rig.packet({0x28, 0, 0, 0, 0, 2, 0, 0, 1, 0}, 0);
  REQUIRE(c.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(c.rig.in(Rig::kError) == 0x04);
}

TEST_CASE("packet_read_by_dma_goes_to_memory", "[ide][atapi]") {
  CdRig c;
  c.rig.prepare({{0x1000, 0x800}, {0x4000, 0x800 | kEot}});
  c.rig.packet({0x28, 0, 0, 0, 0, 5, 0, 0, 2, 0}, 0, true);
  REQUIRE((c.rig.in(Rig::kStatus) & 0x88) != 0);
  c.rig.bm(0, 9);
  REQUIRE(c.rig.bm(2) == 0x04);
  REQUIRE(c.rig.irq());
  REQUIRE(c.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(c.rig.ram[0x1000] == 0x05);
  REQUIRE(c.rig.ram[0x4000] == 0x06);
}

TEST_CASE("last_block_is_padded_with_zeroes", "[ide][atapi]") {
  CdRig c;
  c.disc.inner.bytes().back() = 0x77;
  std::fill(c.rig.ram.begin(), c.rig.ram.end(), std::uint8_t{0xEE});
  c.rig.prepare({{0x1000, 0x1000 | kEot}});
  c.rig.packet({0x28, 0, 0, 0, 0x01, 0x2A, 0, 0, 2, 0}, 0, true);
  c.rig.bm(0, 9);
  REQUIRE(c.rig.ram[0x1800 + 1047] == 0x77);
  REQUIRE(c.rig.ram[0x1800 + 1048] == 0);
  REQUIRE(c.rig.ram[0x1FFF] == 0);
  REQUIRE(c.rig.reply({0x25}) == std::vector<std::uint8_t>{0, 0, 1, 0x2B, 0, 0, 8, 0});
}

TEST_CASE("reads_beyond_the_disc_are_out_of_range", "[ide][atapi]") {
  CdRig c;
  c.rig.packet({0x28, 0, 0, 0, 0x01, 0x2B, 0, 0, 2, 0});
  c.require_sense(0x052100);
  c.rig.packet({0xA8, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF});
  c.require_sense(0x052100);
  c.rig.packet({0x2B, 0, 0, 1, 0, 0});
  c.require_sense(0x052100);
  c.rig.packet({0xEE});
  c.require_sense(0x052000);
  REQUIRE(c.rig.sense() == 0);
}

TEST_CASE("host_error_is_a_medium_error", "[ide][atapi]") {
  CdRig c;
  c.disc.bad_sectors = {4 * 6};
  c.rig.packet({0x28, 0, 0, 0, 0, 5, 0, 0, 3, 0}, 2048);
  REQUIRE(c.rig.in(Rig::kStatus) == 0x58);
  static_cast<void>(c.rig.read_bytes(2048));
  c.require_sense(0x031100);
  c.rig.prepare({{0x1000, 0x1800 | kEot}});
  c.rig.packet({0x28, 0, 0, 0, 0, 5, 0, 0, 3, 0}, 0, true);
  c.rig.bm(0, 9);
  REQUIRE(c.rig.bm(2) == 0x04);
  c.require_sense(0x031100);
}

TEST_CASE("read_cd_gives_raw_sectors", "[ide][atapi]") {
  CdRig c;
  c.rig.packet({0xBE, 0, 0, 0, 0, 10, 0, 0, 2, 0xF8, 0}, 2352);
  const auto raw = c.read_bursts(2 * 2352, 2352);
  REQUIRE(raw[0] == 0);
  REQUIRE(raw[1] == 0xFF);
  REQUIRE(std::vector(raw.begin() + 12, raw.begin() + 18) ==
          std::vector<std::uint8_t>{0, 2, 0x10, 1, 10, 0x10});
  c.rig.packet({0xB9, 0, 0, 0, 2, 10, 0, 2, 11, 0x10, 0}, 4096);
  REQUIRE(c.read_bursts(2048, 4096)[0] == 10);
  c.rig.packet({0xBE, 0, 0, 0, 0, 10, 0, 0, 2, 0x00, 0});
  REQUIRE(c.rig.in(Rig::kStatus) == 0x50);
  c.rig.packet({0xBE, 4, 0, 0, 0, 10, 0, 0, 2, 0xF8, 0});  // audio
  c.require_sense(0x056400);
}

TEST_CASE("toc_describes_one_data_track", "[ide][atapi]") {
  CdRig c;
  REQUIRE(c.rig.reply({0x43, 0, 0, 0, 0, 0, 0, 0, 100, 0}) ==
          std::vector<std::uint8_t>{0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xAA, 0, 0, 0, 1, 0x2C});
  REQUIRE(c.rig.reply({0x43, 2, 0, 0, 0, 0, 0xAA, 0, 12, 0}) ==
          std::vector<std::uint8_t>{0, 10, 1, 1, 0, 0x14, 0xAA, 0, 0, 0, 6, 0});
  REQUIRE(c.rig.reply({0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x40}) ==
          std::vector<std::uint8_t>{0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0});
  REQUIRE(c.rig.reply({0x43, 2, 2, 0, 0, 0, 0, 0, 200, 0}).size() == 48);
  REQUIRE(c.rig.reply({0x43, 0, 0, 0, 0, 0, 0, 0, 4, 0}).size() == 4);
  c.rig.packet({0x43, 0, 0, 0, 0, 0, 5, 0, 100, 0});
  c.require_sense(0x052400);
  c.rig.packet({0x43, 0, 3, 0, 0, 0, 0, 0, 100, 0});
  c.require_sense(0x052400);
}

TEST_CASE("drive_reports_have_their_lengths", "[ide][atapi]") {
  CdRig c;
  const auto inquiry = c.rig.reply({0x12, 0, 0, 0, 96});
  REQUIRE(inquiry.size() == 36);
  REQUIRE(inquiry[0] == 5);
  REQUIRE(std::string(inquiry.begin() + 8, inquiry.begin() + 24) == "MAKER   DRIVE   ");
  const auto configuration = c.rig.reply({0x46, 0, 0, 0, 0, 0, 0, 1, 0});
  REQUIRE(load_be<std::uint32_t>(configuration.data()) == configuration.size() - 4);
  REQUIRE(load_be<std::uint16_t>(&configuration[6]) == 8);
  REQUIRE(c.rig.reply({0x46, 2, 0, 3, 0, 0, 0, 1, 0}).size() == 16);
  REQUIRE(c.rig.reply({0x51, 0, 0, 0, 0, 0, 0, 0, 64}).size() == 34);
  REQUIRE(c.rig.reply({0x52, 1, 0, 0, 0, 1, 0, 0, 64}).size() == 36);
  REQUIRE(c.rig.reply({0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 64}).size() == 8);
  REQUIRE(c.rig.reply({0x42, 2, 0x40, 1, 0, 0, 0, 0, 64}).size() == 16);
  c.rig.packet({0xAD, 0, 0, 0, 0, 0, 0, 0, 1, 0});
  c.require_sense(0x053002);
}

TEST_CASE("mode_pages_are_sensed_and_selected", "[ide][atapi]") {
  CdRig c;
  const auto all = c.rig.reply({0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 255});
  REQUIRE(all.size() == 8 + 8 + 16 + 20);
  REQUIRE(load_be<std::uint16_t>(all.data()) == all.size() - 2);
  const std::array<std::uint8_t, 16> list{0, 0, 0, 0, 0, 0, 0, 0, 0x01, 6, 0x20, 9, 1, 1, 1, 1};
  c.rig.packet({0x55, 0x10, 0, 0, 0, 0, 0, 0, 16}, 16);
  REQUIRE(c.rig.irq());
  REQUIRE(c.rig.in(Rig::kCount) == 0);
  c.rig.write_bytes(list);
  REQUIRE(c.rig.in(Rig::kStatus) == 0x50);
  const auto page = c.rig.reply({0x5A, 0, 0x01, 0, 0, 0, 0, 0, 255});
  REQUIRE(std::vector(page.begin() + 8, page.end()) == std::vector<std::uint8_t>{1, 6, 0x20, 9, 0, 0, 0, 0});
  c.rig.packet({0x55, 0x10, 0, 0, 0, 0, 0, 0, 16}, 16);
  c.rig.write_bytes(std::array<std::uint8_t, 16>{0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xFF});
  c.require_sense(0x052600);
  c.rig.packet({0x5A, 0, 0xC1, 0, 0, 0, 0, 0, 255});
  c.require_sense(0x053900);
}

TEST_CASE("empty_drive_is_not_ready", "[ide][atapi]") {
  Rig rig{cdrom_config(nullptr)};
  rig.packet({0x00});
  REQUIRE(rig.in(Rig::kStatus) == 0x51);
  REQUIRE(rig.in(Rig::kError) == 0x20);
  REQUIRE(rig.sense() == 0x023A01);
  REQUIRE(rig.reply({0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8}) ==
          std::vector<std::uint8_t>{0, 6, 4, 0x10, 0, 0, 0, 0});
  rig.out(Rig::kCommand, 0xE7);
  REQUIRE((rig.in(Rig::kStatus) & 0x80) == 0);
}

TEST_CASE("change_of_discs_is_a_unit_attention", "[ide][atapi]") {
  CdRig c;
  MemoryBlockDevice other(10 * kBlock);
  REQUIRE(c.drive.change_disc(&other));
  REQUIRE(c.rig.reply({0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8}) ==
          std::vector<std::uint8_t>{0, 6, 4, 0x10, 2, 2, 0, 0});
  REQUIRE(c.rig.reply({0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8})[4] == 0);
  c.rig.packet({0x00});
  c.require_sense(0x062800);
  c.rig.packet({0x00});
  REQUIRE(c.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(c.rig.reply({0x25})[3] == 9);
  REQUIRE(c.drive.change_disc(nullptr));
  c.rig.packet({0x00});
  c.require_sense(0x023A01);
}

TEST_CASE("tray_obeys_lock_and_eject", "[ide][atapi]") {
  CdRig c;
  c.rig.packet({0x1E, 0, 0, 0, 1});
  REQUIRE(c.drive.locked());
  c.rig.packet({0x1B, 0, 0, 0, 2});
  c.require_sense(0x055302);
  REQUIRE(c.drive.eject(false).error().code == ErrorCode::kBusy);
  REQUIRE(c.rig.reply({0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8})[4] == 1);
  c.rig.packet({0x1E, 0, 0, 0, 0});
  c.rig.packet({0x1B, 0, 0, 0, 2});
  REQUIRE(c.drive.tray_open());
  c.rig.packet({0x00});
  c.require_sense(0x023A02);
  c.rig.packet({0x1B, 0, 0, 0, 3});
  c.rig.packet({0x00});
  c.require_sense(0x062800);
}

TEST_CASE("tray_left_open_takes_another_disc_and_tells_of_its_moves", "[ide][atapi]") {
  CdRig c;
  MemoryBlockDevice other(10 * kBlock);
  std::vector<bool> moves;
  c.drive.watch_tray([&](bool open) { moves.push_back(open); });
  REQUIRE(c.drive.lay_in_tray(&other).error().code == ErrorCode::kInvalid);
  REQUIRE(c.drive.eject(false));
  REQUIRE(c.drive.lay_in_tray(nullptr));
  c.rig.packet({0x00});
  c.require_sense(0x023A02);
  REQUIRE(c.drive.lay_in_tray(&other));
  c.drive.push_in();
  c.drive.push_in();
  c.rig.packet({0x00});
  c.require_sense(0x062800);
  REQUIRE(c.rig.reply({0x25})[3] == 9);
  c.rig.packet({0x1B, 0, 0, 0, 2});
  REQUIRE(moves == std::vector{true, false, true});
}

TEST_CASE("disc_taken_out_during_a_read_ends_it", "[ide][atapi]") {
  CdRig c;
  c.rig.packet({0x28, 0, 0, 0, 0, 0, 0, 0, 64, 0}, 2048);
  REQUIRE(c.rig.in(Rig::kStatus) == 0x58);
  REQUIRE(c.drive.change_disc(nullptr));
  for (int i = 0; i < 32; ++i) {  // what was read ahead is still there
    static_cast<void>(c.rig.read_bytes(2048));
  }
  REQUIRE(c.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(c.rig.sense() == 0x023A00);
}

TEST_CASE("large_disc_is_a_dvd", "[ide][atapi]") {
  TestDisk disc(kBlock);
  disc.claimed_size = 400000ULL * kBlock;
  Rig rig{cdrom_config(&disc)};
  REQUIRE(load_be<std::uint16_t>(&rig.reply({0x46, 0, 0, 0, 0, 0, 0, 0, 8})[6]) == 0x10);
  const auto physical = rig.reply({0xAD, 0, 0, 0, 0, 0, 0, 0, 0x10, 0});
  REQUIRE(physical.size() == 2052);
  REQUIRE(load_be<std::uint32_t>(&physical[12]) == 0x030000 + 399999);
}
