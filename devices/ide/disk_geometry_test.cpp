#include "devices/ide/disk_geometry.hpp"

#include <array>
#include <catch2/catch.hpp>

#include "base/bytes.hpp"

using namespace whistler;

namespace {

constexpr std::uint64_t kSmall = 61440;
constexpr std::uint64_t kBig = 8388608;

using Sector = std::array<std::uint8_t, 512>;

/// A disk with one partition that ends at this head and sector.
Sector partitioned(std::uint8_t last_head, std::uint8_t last_sector, unsigned entry = 0) {
  Sector mbr{};
  mbr[510] = 0x55;
  mbr[511] = 0xAA;
  const auto at = 446 + 16 * entry;
  mbr[at + 5] = last_head;
  mbr[at + 6] = last_sector;
  store_le<std::uint32_t>(&mbr[at + 12], 8001);
  return mbr;
}

void require(const DiskGeometry& got, unsigned cylinders, unsigned heads, unsigned sectors,
             BiosTranslation translation) {
  REQUIRE(got.chs.cylinders == cylinders);
  REQUIRE(got.chs.heads == heads);
  REQUIRE(got.chs.sectors == sectors);
  REQUIRE(got.translation == translation);
}

}  // namespace

TEST_CASE("blank_disk_has_16_heads_and_is_translated_when_large", "[geometry]") {
  require(guess_geometry(kSmall, Sector{}), 60, 16, 63, BiosTranslation::kNone);
  require(guess_geometry(kBig, Sector{}), 8322, 16, 63, BiosTranslation::kLba);
  require(guess_geometry(kBig, {}), 8322, 16, 63, BiosTranslation::kLba);
  require(guess_geometry(1, Sector{}), 2, 16, 63, BiosTranslation::kNone);
  require(guess_geometry(UINT64_MAX, Sector{}), 16383, 16, 63, BiosTranslation::kLba);
}

TEST_CASE("partition_with_more_heads_than_a_drive_was_made_with_translation", "[geometry]") {
  require(guess_geometry(kSmall, partitioned(127, 63)), 60, 16, 63, BiosTranslation::kLarge);
  require(guess_geometry(kBig, partitioned(254, 63)), 8322, 16, 63, BiosTranslation::kLba);
}

TEST_CASE("partition_made_without_translation_keeps_its_geometry", "[geometry]") {
  require(guess_geometry(kBig, partitioned(15, 63)), 8322, 16, 63, BiosTranslation::kNone);
  require(guess_geometry(kSmall, partitioned(3, 32)), 480, 4, 32, BiosTranslation::kNone);
  require(guess_geometry(kSmall, partitioned(3, 0xC0 | 32, 3)), 480, 4, 32, BiosTranslation::kNone);
}

TEST_CASE("partition_table_that_cannot_be_is_not_used", "[geometry]") {
  auto unsigned_mbr = partitioned(3, 32);
  unsigned_mbr[511] = 0;
  require(guess_geometry(kSmall, unsigned_mbr), 60, 16, 63, BiosTranslation::kNone);
  require(guess_geometry(kSmall, partitioned(3, 0)), 60, 16, 63, BiosTranslation::kNone);
  require(guess_geometry(kSmall, partitioned(0, 32)), 60, 16, 63, BiosTranslation::kNone);
  require(guess_geometry(kBig, partitioned(1, 1)), 8322, 16, 63, BiosTranslation::kLba);
  require(guess_geometry(100, partitioned(3, 32)), 2, 16, 63, BiosTranslation::kNone);
}
