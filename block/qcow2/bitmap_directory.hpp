// The persistent dirty bitmaps of an image as they lie in the file: the header extension, and the directory
// it names. No I/O.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "block/qcow2/header.hpp"

namespace whistler::qcow2 {

inline constexpr std::uint32_t kBitmapInUse = 1 << 0;  ///< not stored properly: its content means nothing
inline constexpr std::uint32_t kBitmapAuto = 1 << 1;   ///< enabled: writes are marked in it
inline constexpr std::uint32_t kBitmapExtraCompatible = 1 << 2;
inline constexpr std::uint8_t kDirtyTracking = 1;
inline constexpr unsigned kMinGranularityBits = 9;
inline constexpr unsigned kMaxGranularityBits = 31;
inline constexpr std::size_t kMaxBitmapName = 1023;
inline constexpr std::size_t kMaxBitmaps = 65535;
inline constexpr std::uint64_t kMaxBitmapDirectoryBytes = 64 * 1024 * 1024;
/// Of one bitmap's data, as in QEMU; and of all that are in memory at once.
inline constexpr std::uint64_t kMaxBitmapBytes = 512 * 1024 * 1024;

struct DiskBitmap {
  std::uint64_t table_offset = 0;
  std::uint32_t table_entries = 0;
  std::uint32_t flags = 0;
  std::uint8_t type = kDirtyTracking;
  std::uint8_t granularity_bits = 16;
  std::vector<std::uint8_t> extra = {};
  std::string name = {};

  /// Whether it is one that QEMU opens an image with.
  [[nodiscard]] bool within_limits() const {
    return table_entries != 0 && (flags & ~(kBitmapInUse | kBitmapAuto | kBitmapExtraCompatible)) == 0 &&
           type == kDirtyTracking && granularity_bits >= kMinGranularityBits &&
           granularity_bits <= kMaxGranularityBits;
  }
  /// Whether its bits can be taken as they are.
  [[nodiscard]] bool usable() const {
    return (flags & kBitmapInUse) == 0 && type == kDirtyTracking && granularity_bits >= kMinGranularityBits &&
           granularity_bits <= kMaxGranularityBits &&
           (extra.empty() || (flags & kBitmapExtraCompatible) != 0);
  }
};

struct BitmapExtension {
  std::uint32_t count = 0;
  std::uint64_t directory_bytes = 0;
  std::uint64_t directory_offset = 0;
  std::uint32_t reserved = 0;
};

/// The header's extension; nothing if it has none, or if its autoclear bit says that it is out of date.
[[nodiscard]] std::optional<BitmapExtension> bitmap_extension(const Header& header);
/// kCorrupt if the directory cannot lie where the extension says.
[[nodiscard]] Result<void> check_bitmap_extension(const BitmapExtension& extension, const Geometry& geometry,
                                                  std::uint64_t file_size, const std::string& name);
[[nodiscard]] Extension encode_bitmap_extension(const BitmapExtension& extension);

/// `bytes`: the directory. Errors name `name` and the bitmap's number.
[[nodiscard]] Result<std::vector<DiskBitmap>> parse_bitmap_directory(std::span<const std::uint8_t> bytes,
                                                                     std::uint32_t count,
                                                                     const Geometry& geometry,
                                                                     const std::string& name);
[[nodiscard]] std::vector<std::uint8_t> encode_bitmap_directory(const std::vector<DiskBitmap>& bitmaps);

}  // namespace whistler::qcow2
