#include "devices/ide/ata_disk.hpp"

#include <catch2/catch.hpp>

#include "devices/ide/ide_test_rig.hpp"

using namespace whistler;
using namespace whistler::ide_test;

namespace {

constexpr std::uint64_t kSectors = 4096;  // 2 MiB

struct DiskRig {
  TestDisk disk{kSectors * kSector};
  Rig rig{disk_config(disk)};
  DiskRig() { number_sectors(disk.inner.bytes()); }
  std::uint64_t number_in_ram(std::size_t at) const { return load_le<std::uint64_t>(&rig.ram[at]); }
};

std::array<std::uint16_t, 256> identify(Rig& rig, unsigned command = 0xEC) {
  std::array<std::uint16_t, 256> words{};
  rig.out(Rig::kCommand, command);
  for (auto& word : words) {
    word = rig.data();
  }
  return words;
}

std::string text(const std::array<std::uint16_t, 256>& words, std::size_t first, std::size_t count) {
  std::string result;
  for (std::size_t i = first; i < first + count; ++i) {
    result += static_cast<char>(words[i] >> 8);
    result += static_cast<char>(words[i] & 0xFF);
  }
  return result;
}

}  // namespace

TEST_CASE("identify_device_tells_the_drive", "[ide]") {
  DiskRig d;
  d.rig.out(Rig::kDevice, 0);
  d.rig.out(Rig::kCommand, 0xEC);
  REQUIRE(d.rig.irq());
  REQUIRE(d.rig.in(Rig::kStatus) == 0x58);
  REQUIRE_FALSE(d.rig.irq());
  const auto words = identify(d.rig);  // asked again while data waits: the command is not taken
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(text(words, 10, 10) == "testdisk            ");
  REQUIRE(text(words, 23, 4) == "version ");
  REQUIRE(words[1] == 4);
  REQUIRE(words[3] == 16);
  REQUIRE(words[6] == 63);
  REQUIRE(words[60] == kSectors);
  REQUIRE(words[100] == kSectors);
  REQUIRE((words[85] & 0x20) != 0);
  REQUIRE(words[88] == 0x203F);
  REQUIRE(words[93] == 0x600B);
  REQUIRE(words[169] == 1);
  unsigned sum = 0;
  for (const auto word : words) {
    sum += (word & 0xFFU) + (word >> 8);
  }
  REQUIRE((sum & 0xFF) == 0);
}

TEST_CASE("pio_read_gives_each_sector_with_an_interrupt", "[ide]") {
  DiskRig d;
  d.rig.address(10, 3);
  d.rig.out(Rig::kCommand, 0x20);
  for (std::uint64_t sector = 10; sector < 13; ++sector) {
    REQUIRE(d.rig.irq());
    REQUIRE(d.rig.in(Rig::kStatus) == 0x58);
    REQUIRE(load_le<std::uint64_t>(d.rig.read_bytes(512).data()) == sector + 0x1000);
  }
  REQUIRE_FALSE(d.rig.irq());
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(d.disk.reads == 1);  // read ahead: one host request for all
}

TEST_CASE("pio_data_port_takes_all_widths", "[ide]") {
  DiskRig d;
  d.rig.address(5, 1);
  d.rig.out(Rig::kCommand, 0x20);
  auto& port = d.rig.ide.command_block(0);
  REQUIRE(port.read(0, 4) == 0x1005);
  REQUIRE(port.read(0, 1) == 0);
  for (int i = 0; i < 126; ++i) {
    static_cast<void>(port.read(0, 4));
  }
  REQUIRE(d.rig.alternate() == 0x58);
  REQUIRE(port.read(0, 4) == 0);  // three bytes are left
  REQUIRE(d.rig.alternate() == 0x50);
  REQUIRE(port.read(0, 4) == 0);
}

TEST_CASE("pio_write_reaches_the_disk_sector_by_sector", "[ide]") {
  DiskRig d;
  const std::vector<std::uint8_t> sector(512, 0xA5);
  d.rig.address(20, 2);
  d.rig.out(Rig::kCommand, 0x30);
  REQUIRE_FALSE(d.rig.irq());
  REQUIRE(d.rig.in(Rig::kStatus) == 0x58);
  d.rig.write_bytes(sector);
  REQUIRE(d.rig.irq());
  REQUIRE(d.rig.in(Rig::kStatus) == 0x58);
  d.rig.write_bytes(sector);
  REQUIRE(d.rig.irq());
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(d.disk.inner.bytes()[20 * 512] == 0xA5);
  REQUIRE(d.disk.inner.bytes()[22 * 512 - 1] == 0xA5);
  REQUIRE(d.disk.inner.bytes()[22 * 512] == 0x16);
}

TEST_CASE("multiple_commands_use_larger_blocks", "[ide]") {
  DiskRig d;
  d.rig.out(Rig::kCount, 8);
  d.rig.out(Rig::kCommand, 0xC6);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(identify(d.rig)[59] == 0x0108);
  const auto before = d.rig.irqs.raised(14);
  d.rig.address(0, 12);
  d.rig.out(Rig::kCommand, 0xC4);
  static_cast<void>(d.rig.in(Rig::kStatus));
  const auto first = d.rig.read_bytes(8 * 512);
  REQUIRE(load_le<std::uint64_t>(&first[7 * 512]) == 0x1007);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x58);
  static_cast<void>(d.rig.read_bytes(4 * 512));
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(d.rig.irqs.raised(14) == before + 2);
  d.rig.out(Rig::kCount, 3);
  d.rig.out(Rig::kCommand, 0xC6);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(d.rig.in(Rig::kError) == 0x04);
}

TEST_CASE("chs_addresses_follow_the_current_translation", "[ide]") {
  DiskRig d;
  d.rig.out(Rig::kDevice, 0x01);  // two heads
  d.rig.out(Rig::kCount, 10);     // ten sectors a track
  d.rig.out(Rig::kCommand, 0x91);
  d.rig.out(Rig::kDevice, 0x01);  // cylinder 3, head 1, sector 5: (3 * 2 + 1) * 10 + 4
  d.rig.out(Rig::kCount, 1);
  d.rig.out(Rig::kLow, 5);
  d.rig.out(Rig::kMid, 3);
  d.rig.out(Rig::kHigh, 0);
  d.rig.out(Rig::kCommand, 0x20);
  REQUIRE(load_le<std::uint64_t>(d.rig.read_bytes(512).data()) == 74 + 0x1000);
  d.rig.out(Rig::kLow, 0);  // no such sector
  d.rig.out(Rig::kCount, 1);
  d.rig.out(Rig::kCommand, 0x20);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  REQUIRE((d.rig.in(Rig::kError)&ata::kIdnf) != 0);
}

TEST_CASE("addresses_beyond_the_end_are_not_found", "[ide]") {
  DiskRig d;
  d.rig.address(kSectors - 1, 2);
  d.rig.out(Rig::kCommand, 0x20);
  REQUIRE(d.rig.irq());
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(d.rig.in(Rig::kError) == 0x14);
  d.rig.address48(0x123456789ABC, 1);
  d.rig.out(Rig::kCommand, 0x24);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
}

TEST_CASE("dma_moves_data_both_ways_through_split_descriptors", "[ide]") {
  DiskRig d;
  d.rig.address(100, 2);
  REQUIRE(d.rig.dma(0xC8, true, {{0x1002, 0x1FE}, {0x3001, 0x200}, {0x5000, 2 | kEot}}) == 0x04);
  REQUIRE(d.rig.irq());
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  REQUIRE_FALSE(d.rig.irq());
  REQUIRE(d.number_in_ram(0x1002) == 0x1064);
  REQUIRE(d.rig.ram[0x3002] ==
          0x65);  // sector 101 starts two bytes into the second piece; bit 0 of its address is nothing
  d.rig.address48(200, 2);
  REQUIRE(d.rig.dma(0x35, false, {{0x1002, 0x1FE}, {0x3000, 0x200}, {0x5000, 2 | kEot}}) == 0x04);
  REQUIRE(load_le<std::uint64_t>(&d.disk.inner.bytes()[201 * 512]) == 0x1065);
}

TEST_CASE("dma_tables_of_other_sizes_end_as_the_standard_says", "[ide]") {
  DiskRig d;
  for (unsigned sectors = 1; sectors <= 128; sectors *= 4) {
    for (unsigned size = 0; size < 65536; size += 1536) {
      CAPTURE(sectors, size);
      const unsigned described = (size & 0xFFFE) == 0 ? 65536 : size;
      const unsigned wanted = sectors * 512;
      const unsigned expected = described < wanted ? 0 : described == wanted ? 4 : 5;
      d.rig.address(0, sectors);
      REQUIRE(d.rig.dma(0xC8, true, {{0, size | kEot}}) == expected);
      REQUIRE(d.rig.irq() == ((expected & 4) != 0));
      REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
      d.rig.bm(0, 0);
      REQUIRE(d.rig.bm(2) == (expected & 4));
    }
  }
}

TEST_CASE("dma_without_bus_mastering_reaches_nothing", "[ide]") {
  DiskRig d;
  d.rig.ide.config_write(kPciCommand, 2, kPciCommandIo);
  d.rig.address(0, 0);
  REQUIRE(d.rig.dma(0xC8, true, {{0x2000, 0}}) == 0x05);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(d.number_in_ram(0x2000) == 0);
  d.rig.address(0, 1);
  REQUIRE((d.rig.dma(0xCA, false, {{0x2000, 0x200 | kEot}}) & 3) == 2);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(load_le<std::uint64_t>(d.disk.inner.bytes().data()) == 0x1000);
}

TEST_CASE("dma_outside_of_ram_is_an_error", "[ide]") {
  DiskRig d;
  d.rig.address(0, 1);
  REQUIRE(d.rig.dma(0xC8, true, {{0xFFFFFFF0, 0x200 | kEot}}) == 0x06);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(d.rig.in(Rig::kError) == 0x04);
  d.rig.prepare({});
  d.rig.ide.bars()[4].handler->write(4, 4, 0xFFFFFFFC);  // so is a table there
  d.rig.address(0, 1);
  d.rig.out(Rig::kCommand, 0xC8);
  d.rig.bm(0, 9);
  REQUIRE(d.rig.bm(2) == 0x06);
}

TEST_CASE("dma_over_thousands_of_pieces_works", "[ide]") {
  DiskRig d;
  constexpr unsigned kPieces = 4096;  // of two bytes
  for (unsigned i = 0; i < kPieces; ++i) {
    store_le<std::uint32_t>(&d.rig.ram[0x90000 + i * 8], 0x10000 + i * 4);
    store_le<std::uint32_t>(&d.rig.ram[0x90004 + i * 8], 2 | (i + 1 == kPieces ? kEot : 0));
  }
  d.rig.prepare({});
  d.rig.ide.bars()[4].handler->write(4, 4, 0x90000);
  d.rig.address(1, 16);
  d.rig.out(Rig::kCommand, 0xC8);
  d.rig.bm(0, 9);
  REQUIRE(d.rig.bm(2) == 0x04);
  REQUIRE(d.rig.ram[0x10000] == 0x01);
  REQUIRE(d.rig.ram[0x10000 + 256 * 4] == 0x02);
}

TEST_CASE("dma_started_before_the_command_works", "[ide]") {
  DiskRig d;
  d.rig.prepare({{0x1000, 0x200 | kEot}});
  d.rig.bm(0, 9);
  REQUIRE(d.rig.bm(2) == 0x01);
  d.rig.address(7, 1);
  d.rig.out(Rig::kCommand, 0xC8);
  REQUIRE(d.rig.bm(2) == 0x04);
  REQUIRE(d.number_in_ram(0x1000) == 0x1007);
}

TEST_CASE("lba48_transfers_of_many_sectors_work", "[ide]") {
  DiskRig d;
  d.rig.address48(8, 1024);
  REQUIRE(d.rig.dma(0x25, true,
                    {{0, 0},
                     {0x10000, 0},
                     {0x20000, 0},
                     {0x30000, 0},
                     {0x40000, 0},
                     {0x50000, 0},
                     {0x60000, 0},
                     {0x70000, kEot}}) == 0x04);
  REQUIRE(d.number_in_ram(0x7FE00) == 0x1000 + 8 + 1023);
  d.rig.address48(3, 1);
  d.rig.out(Rig::kCommand, 0x29);
  REQUIRE(load_le<std::uint64_t>(d.rig.read_bytes(512).data()) == 0x1003);
}

TEST_CASE("trim_discards_valid_ranges_only", "[ide]") {
  DiskRig d;
  store_le<std::uint64_t>(&d.rig.ram[0x1000], 0 | (2ULL << 48));
  store_le<std::uint64_t>(&d.rig.ram[0x1008], 6 | (8ULL << 48));
  d.rig.address(0, 1);
  d.rig.out(Rig::kFeatures, 1);
  REQUIRE(d.rig.dma(0x06, false, {{0x1000, 512 | kEot}}) == 0x04);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(d.disk.inner.bytes()[512] == 0);
  REQUIRE(d.disk.inner.bytes()[2 * 512] == 2);
  REQUIRE(d.disk.inner.bytes()[13 * 512] == 0);
  store_le<std::uint64_t>(&d.rig.ram[0x1000], 10 | (1ULL << 48));
  store_le<std::uint64_t>(&d.rig.ram[0x1008], (kSectors - 1) | (2ULL << 48));
  d.rig.address(0, 1);
  d.rig.out(Rig::kFeatures, 1);
  REQUIRE(d.rig.dma(0x06, false, {{0x1000, 512 | kEot}}) == 0x04);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(d.rig.in(Rig::kError) == 0x04);
}

TEST_CASE("read_errors_name_the_sector", "[ide]") {
  DiskRig d;
  d.disk.bad_sectors = {105};
  d.rig.address(100, 8);
  d.rig.out(Rig::kCommand, 0x20);
  for (int i = 0; i < 5; ++i) {
    REQUIRE(d.rig.in(Rig::kStatus) == 0x58);
    static_cast<void>(d.rig.read_bytes(512));
  }
  REQUIRE(d.rig.irq());
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(d.rig.in(Rig::kError) == 0x40);
  REQUIRE(d.rig.in(Rig::kLow) == 105);
  REQUIRE(d.rig.in(Rig::kCount) == 3);
  d.rig.address(90, 32);
  REQUIRE(d.rig.dma(0xC8, true, {{0x4000, 0x4000 | kEot}}) == 0x04);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(d.rig.in(Rig::kError) == 0x40);
  REQUIRE(d.rig.in(Rig::kLow) == 105);
  d.rig.address(90, 32);
  d.rig.out(Rig::kCommand, 0x40);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(d.rig.in(Rig::kLow) == 105);
}

TEST_CASE("write_and_flush_errors_abort", "[ide]") {
  DiskRig d;
  d.disk.bad_sectors = {50};
  d.rig.address(50, 1);
  REQUIRE(d.rig.dma(0xCA, false, {{0x4000, 0x200 | kEot}}) == 0x04);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  REQUIRE(d.rig.in(Rig::kError) == 0x04);
  d.disk.fail_flush = true;
  d.rig.out(Rig::kCommand, 0xE7);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
  d.disk.fail_flush = false;
  d.rig.out(Rig::kCommand, 0xEA);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  REQUIRE(d.disk.inner.flushes() == 1);
}

TEST_CASE("write_cache_off_and_fua_make_writes_durable", "[ide]") {
  DiskRig d;
  d.rig.address(1, 1);
  static_cast<void>(d.rig.dma(0xCA, false, {{0x4000, 0x200 | kEot}}));
  REQUIRE_FALSE(d.disk.fua);
  d.rig.address48(1, 1);
  static_cast<void>(d.rig.dma(0x3D, false, {{0x4000, 0x200 | kEot}}));
  REQUIRE(d.disk.fua);
  d.rig.out(Rig::kFeatures, 0x82);
  d.rig.out(Rig::kCommand, 0xEF);
  REQUIRE(d.disk.inner.flushes() == 1);
  REQUIRE((identify(d.rig)[85] & 0x20) == 0);
  d.disk.fua = false;
  d.rig.address(1, 1);
  static_cast<void>(d.rig.dma(0xCA, false, {{0x4000, 0x200 | kEot}}));
  REQUIRE(d.disk.fua);
}

TEST_CASE("set_features_selects_the_transfer_mode", "[ide]") {
  DiskRig d;
  d.rig.out(Rig::kFeatures, 3);
  d.rig.out(Rig::kCount, 0x22);
  d.rig.out(Rig::kCommand, 0xEF);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  const auto words = identify(d.rig);
  REQUIRE(words[63] == 0x0407);
  REQUIRE(words[88] == 0x003F);
  d.rig.out(Rig::kFeatures, 3);
  d.rig.out(Rig::kCount, 0x46);  // UDMA 6
  d.rig.out(Rig::kCommand, 0xEF);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
}

TEST_CASE("native_max_and_set_max_bound_the_disk", "[ide]") {
  DiskRig d;
  d.rig.out(Rig::kDevice, 0x40);
  d.rig.out(Rig::kCommand, 0xF8);
  REQUIRE(d.rig.in(Rig::kLow) == 0xFF);
  REQUIRE(d.rig.in(Rig::kMid) == 0x0F);
  d.rig.address(999, 0);
  d.rig.out(Rig::kFeatures, 0);
  d.rig.out(Rig::kCommand, 0xF9);
  REQUIRE(identify(d.rig)[60] == 1000);
  d.rig.address(1000, 1);
  d.rig.out(Rig::kCommand, 0x20);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
}

TEST_CASE("smart_answers_only_with_its_key", "[ide]") {
  DiskRig d;
  const auto smart = [&](unsigned feature, unsigned mid) {
    d.rig.out(Rig::kFeatures, feature);
    d.rig.out(Rig::kMid, mid);
    d.rig.out(Rig::kHigh, 0xC2);
    d.rig.out(Rig::kCommand, 0xB0);
    return d.rig.in(Rig::kStatus);
  };
  REQUIRE(smart(0xDA, 0x4F) == 0x50);
  REQUIRE(d.rig.in(Rig::kMid) == 0x4F);
  REQUIRE(smart(0xDA, 0x00) == 0x51);
  REQUIRE(smart(0xD0, 0x4F) == 0x58);
  const auto page = d.rig.read_bytes(512);
  unsigned sum = 0;
  for (const auto byte : page) {
    sum += byte;
  }
  REQUIRE((sum & 0xFF) == 0);
  REQUIRE(smart(0xD9, 0x4F) == 0x50);
  REQUIRE(smart(0xD0, 0x4F) == 0x51);
}

TEST_CASE("power_mode_and_other_commands_without_data_end", "[ide]") {
  DiskRig d;
  for (const unsigned command : {0x10U, 0x70U, 0xE0U, 0xE1U, 0xE7U}) {
    CAPTURE(command);
    d.rig.address(0, 1);
    d.rig.out(Rig::kCommand, command);
    REQUIRE(d.rig.irq());
    REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  }
  d.rig.out(Rig::kCommand, 0xE0);
  d.rig.out(Rig::kCommand, 0xE5);
  REQUIRE(d.rig.in(Rig::kCount) == 0x00);
  for (const unsigned command : {0x00U, 0x08U, 0xA0U, 0xA1U, 0xF1U, 0xF6U, 0x87U, 0xC0U, 0xFFU}) {
    CAPTURE(command);
    d.rig.out(Rig::kCommand, command);
    REQUIRE(d.rig.irq());
    REQUIRE(d.rig.in(Rig::kStatus) == 0x51);
    REQUIRE(d.rig.in(Rig::kError) == 0x04);
  }
}

TEST_CASE("sector_buffer_keeps_what_was_written", "[ide]") {
  DiskRig d;
  const std::vector<std::uint8_t> pattern(512, 0x3C);
  d.rig.out(Rig::kCommand, 0xE8);
  d.rig.write_bytes(pattern);
  REQUIRE(d.rig.in(Rig::kStatus) == 0x50);
  d.rig.out(Rig::kCommand, 0xE4);
  REQUIRE(d.rig.read_bytes(512) == pattern);
}

TEST_CASE("read_only_disk_refuses_writes", "[ide]") {
  MemoryBlockDevice block(1 << 20, true);
  Rig rig{disk_config(block)};
  rig.address(0, 1);
  rig.out(Rig::kCommand, 0x30);
  REQUIRE(rig.in(Rig::kStatus) == 0x51);
  rig.address(0, 1);
  rig.out(Rig::kCommand, 0xCA);
  REQUIRE(rig.in(Rig::kStatus) == 0x51);
  rig.out(Rig::kCommand, 0xE7);
  REQUIRE(rig.in(Rig::kStatus) == 0x50);
}

TEST_CASE("disk_that_wants_alignment_gets_it", "[ide]") {
  DiskRig d;
  d.disk.alignment = 512;
  d.rig.address(9, 1);
  REQUIRE(d.rig.dma(0xC8, true, {{0x1002, 0x100}, {0x3000, 0x100 | kEot}}) == 0x04);
  REQUIRE(d.number_in_ram(0x1002) == 0x1009);
  d.rig.address(9, 1);
  d.rig.out(Rig::kCommand, 0x20);
  REQUIRE(load_le<std::uint64_t>(d.rig.read_bytes(512).data()) == 0x1009);
  REQUIRE(d.disk.aligned);
}
