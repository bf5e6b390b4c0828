#include "devices/ide/disk_geometry.hpp"

#include <algorithm>
#include <optional>

#include "base/bytes.hpp"

namespace whistler {
namespace {

constexpr std::uint32_t kStandardHeads = 16;
constexpr std::uint32_t kStandardSectors = 63;
constexpr std::uint32_t kMostCylinders = 16383;

struct PartitionedAs {
  std::uint32_t cylinders, heads, sectors;  // up to 256 heads
};

/// The geometry the first partition was made with, if partitions end where cylinders do.
std::optional<PartitionedAs> read_partition_table(std::uint64_t disk_sectors,
                                                  std::span<const std::uint8_t> mbr) {
  constexpr std::size_t kTable = 446;
  constexpr std::size_t kEntry = 16;
  constexpr std::size_t kEntries = 4;
  constexpr std::size_t kSignature = 510;
  if (mbr.size() < kSignature + 2 || mbr[kSignature] != 0x55 || mbr[kSignature + 1] != 0xAA) {
    return std::nullopt;
  }
  for (std::size_t i = 0; i < kEntries; ++i) {
    const auto entry = mbr.subspan(kTable + i * kEntry, kEntry);
    const std::uint32_t last_head = entry[5];
    const std::uint32_t sectors = entry[6] & 63U;
    const auto length = load_le<std::uint32_t>(&entry[12]);
    if (length == 0 || last_head == 0 || sectors == 0) {
      continue;
    }
    const std::uint32_t heads = last_head + 1;
    const auto cylinders = disk_sectors / (std::uint64_t{heads} * sectors);
    if (cylinders >= 1 && cylinders <= kMostCylinders) {
      return PartitionedAs{static_cast<std::uint32_t>(cylinders), heads, sectors};
    }
  }
  return std::nullopt;
}

}  // namespace

IdeGeometry standard_geometry(std::uint64_t sectors) {
  const auto cylinders =
      std::clamp<std::uint64_t>(sectors / (kStandardHeads * kStandardSectors), 2, kMostCylinders);
  return {static_cast<std::uint16_t>(cylinders), kStandardHeads, kStandardSectors};
}

BiosTranslation usual_translation(const IdeGeometry& chs) {
  const bool fits = chs.cylinders <= 1024 && chs.heads <= 16 && chs.sectors <= 63;
  return fits ? BiosTranslation::kNone : BiosTranslation::kLba;
}

DiskGeometry guess_geometry(std::uint64_t sectors, std::span<const std::uint8_t> first_sector) {
  constexpr std::uint32_t kMostForLarge = 131072;  // cylinders times heads
  const auto standard = standard_geometry(sectors);
  const auto partitioned = read_partition_table(sectors, first_sector);
  if (!partitioned) {
    return {standard, usual_translation(standard)};
  }
  if (partitioned->heads > kStandardHeads) {  // more than a drive can have: the BIOS translated
    const bool large = std::uint32_t{standard.cylinders} * standard.heads <= kMostForLarge;
    return {standard, large ? BiosTranslation::kLarge : BiosTranslation::kLba};
  }
  return {{static_cast<std::uint16_t>(partitioned->cylinders), static_cast<std::uint8_t>(partitioned->heads),
           static_cast<std::uint8_t>(partitioned->sectors)},
          BiosTranslation::kNone};
}

}  // namespace whistler
