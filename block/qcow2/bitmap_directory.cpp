#include "block/qcow2/bitmap_directory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

namespace whistler::qcow2 {

namespace {
constexpr std::size_t kExtensionBytes = 24;
constexpr std::size_t kFixed = 24;  ///< of a directory entry
constexpr std::uint64_t kMaxTableEntries = 0x8000000 / 8;
}  // namespace

std::optional<BitmapExtension> bitmap_extension(const Header& header) {
  const auto* found = header.find_extension(kBitmapsExtension);
  if (found == nullptr || found->data.size() != kExtensionBytes || (header.autoclear & kBitmapsValid) == 0) {
    return std::nullopt;
  }
  const auto* at = found->data.data();
  return BitmapExtension{load_be<std::uint32_t>(at), load_be<std::uint64_t>(at + 8),
                         load_be<std::uint64_t>(at + 16), load_be<std::uint32_t>(at + 4)};
}

Result<void> check_bitmap_extension(const BitmapExtension& extension, const Geometry& geometry,
                                    std::uint64_t file_size, const std::string& name) {
  const auto& [count, bytes, offset, reserved] = extension;
  if (count == 0 || count > kMaxBitmaps || bytes > kMaxBitmapDirectoryBytes || bytes < count * kFixed ||
      offset == 0 || geometry.in_cluster(offset) != 0 || offset > file_size || bytes > file_size - offset) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("{}: qcow2 bitmap directory ({} bitmaps in {} bytes at offset {:#x}) is not at a "
                            "cluster boundary inside the file, or too large",
                            name, count, bytes, offset));
  }
  return {};
}

Extension encode_bitmap_extension(const BitmapExtension& extension) {
  Extension out{kBitmapsExtension, std::vector<std::uint8_t>(kExtensionBytes)};
  store_be<std::uint32_t>(out.data.data(), extension.count);
  store_be<std::uint64_t>(&out.data[8], extension.directory_bytes);
  store_be<std::uint64_t>(&out.data[16], extension.directory_offset);
  return out;
}

Result<std::vector<DiskBitmap>> parse_bitmap_directory(std::span<const std::uint8_t> bytes,
                                                       std::uint32_t count, const Geometry& geometry,
                                                       const std::string& name) {
  std::vector<DiskBitmap> bitmaps;
  std::unordered_set<std::string> names;
  std::size_t at = 0;
  const auto corrupt = [&](std::string_view reason) {
    return fail(ErrorCode::kCorrupt, fmt::format("{}: qcow2 bitmap {} (byte {} of the bitmap directory): {}",
                                                 name, bitmaps.size(), at, reason));
  };
  for (std::uint32_t i = 0; i < count; ++i) {
    if (bytes.size() - at < kFixed) {
      return corrupt("the directory ends within it");
    }
    const auto* entry = &bytes[at];
    DiskBitmap bitmap{.table_offset = load_be<std::uint64_t>(entry),
                      .table_entries = load_be<std::uint32_t>(entry + 8),
                      .flags = load_be<std::uint32_t>(entry + 12),
                      .type = entry[16],
                      .granularity_bits = entry[17]};
    const std::size_t name_size = load_be<std::uint16_t>(entry + 18);
    const std::size_t extra_size = load_be<std::uint32_t>(entry + 20);
    if (extra_size > bytes.size() - at - kFixed || name_size > bytes.size() - at - kFixed - extra_size) {
      return corrupt("the directory ends within it");
    }
    if (name_size == 0 || name_size > kMaxBitmapName) {
      return corrupt(fmt::format("its name has {} bytes, not 1 to {}", name_size, kMaxBitmapName));
    }
    if (bitmap.table_entries > kMaxTableEntries || bitmap.table_offset == 0 ||
        geometry.in_cluster(bitmap.table_offset) != 0 || bitmap.table_offset > kMaxHostOffset) {
      return corrupt(
          fmt::format("its table ({} entries at offset {:#x}) is not at a cluster boundary, or too "
                      "large",
                      bitmap.table_entries, bitmap.table_offset));
    }
    const auto* rest = entry + kFixed;
    bitmap.extra.assign(rest, rest + extra_size);
    bitmap.name.assign(reinterpret_cast<const char*>(rest + extra_size), name_size);
    if (!names.insert(bitmap.name).second) {
      return corrupt("its name is that of another one");
    }
    bitmaps.push_back(std::move(bitmap));
    const auto length = static_cast<std::size_t>(align_up(kFixed + extra_size + name_size, 8));
    at = std::min(at + length, bytes.size());
  }
  return bitmaps;
}

std::vector<std::uint8_t> encode_bitmap_directory(const std::vector<DiskBitmap>& bitmaps) {
  std::vector<std::uint8_t> out;
  for (const auto& bitmap : bitmaps) {
    const auto at = out.size();
    const auto length = kFixed + bitmap.extra.size() + bitmap.name.size();
    out.resize(at + static_cast<std::size_t>(align_up(length, 8)));
    auto* entry = &out[at];
    store_be<std::uint64_t>(entry, bitmap.table_offset);
    store_be<std::uint32_t>(entry + 8, bitmap.table_entries);
    store_be<std::uint32_t>(entry + 12, bitmap.flags);
    entry[16] = bitmap.type;
    entry[17] = bitmap.granularity_bits;
    store_be<std::uint16_t>(entry + 18, static_cast<std::uint16_t>(bitmap.name.size()));
    store_be<std::uint32_t>(entry + 20, static_cast<std::uint32_t>(bitmap.extra.size()));
    std::copy(bitmap.extra.begin(), bitmap.extra.end(), entry + kFixed);
    std::copy(bitmap.name.begin(), bitmap.name.end(), entry + kFixed + bitmap.extra.size());
  }
  return out;
}

}  // namespace whistler::qcow2
