#include "block/formats/vhdx.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "base/bytes.hpp"

namespace whistler::formats {

namespace {

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kFirstHeader = 64 * kKiB;
constexpr std::uint64_t kSecondHeader = 128 * kKiB;
constexpr std::uint64_t kFirstRegionTable = 192 * kKiB;
constexpr std::uint64_t kSecondRegionTable = 256 * kKiB;
constexpr std::uint64_t kTableBytes = 64 * kKiB;
constexpr std::uint32_t kMaxEntries = 2047;
constexpr std::uint64_t kMaxDiskBytes = std::uint64_t{64} << 40;
constexpr std::uint32_t kHasParent = 1 << 1;
constexpr std::uint32_t kRequiredItem = 1 << 2;

enum PayloadState : std::uint8_t {
  kNotPresent = 0,
  kUndefined = 1,
  kZeroBlock = 2,
  kUnmapped = 3,
  kFullyPresent = 6,
};

/// A GUID as it lies in the file, from the way it is written.
constexpr VhdxGuid guid(std::uint32_t a, std::uint16_t b, std::uint16_t c, std::uint64_t d) {
  VhdxGuid bytes{};
  for (unsigned i = 0; i < 4; ++i) {
    bytes[i] = static_cast<std::uint8_t>(a >> 8 * i);
  }
  for (unsigned i = 0; i < 2; ++i) {
    bytes[4 + i] = static_cast<std::uint8_t>(b >> 8 * i);
    bytes[6 + i] = static_cast<std::uint8_t>(c >> 8 * i);
  }
  for (unsigned i = 0; i < 8; ++i) {
    bytes[8 + i] = static_cast<std::uint8_t>(d >> 8 * (7 - i));
  }
  return bytes;
}

constexpr auto kBlockTable = guid(0x2dc27766, 0xf623, 0x4200, 0x9d64115e9bfd4a08);
constexpr auto kMetadata = guid(0x8b7ca206, 0x4790, 0x4b9a, 0xb8fe575f050f886e);
constexpr auto kFileParameters = guid(0xcaa16737, 0xfa36, 0x4d43, 0xb3b633f0aa44e76b);
constexpr auto kDiskSize = guid(0x2fa54224, 0xcd1b, 0x4876, 0xb2115dbed83bf4b8);
constexpr auto kPage83 = guid(0xbeca12ab, 0xb2e6, 0x4523, 0x93efc309e000c746);
constexpr auto kLogicalSector = guid(0x8141bf1d, 0xa96f, 0x4709, 0xba47f233a8faab5f);
constexpr auto kPhysicalSector = guid(0xcda348c7, 0x445d, 0x4471, 0x9cc9e9885251c556);
constexpr auto kParentLocator = guid(0xa8d35f2d, 0xb30b, 0x454d, 0xabf7d3d84834ab0c);

std::string text(const VhdxGuid& id) {
  return fmt::format("{:08x}-{:04x}-{:04x}-{:016x}", load_le<std::uint32_t>(&id[0]),
                     load_le<std::uint16_t>(&id[4]), load_le<std::uint16_t>(&id[6]),
                     load_be<std::uint64_t>(&id[8]));
}

// Places in a header.
constexpr std::size_t kChecksumAt = 4;
constexpr std::size_t kSequenceAt = 8;
constexpr std::size_t kLogGuidAt = 48;
constexpr std::size_t kLogVersionAt = 64;
constexpr std::size_t kVersionAt = 66;
constexpr std::size_t kLogBytesAt = 68;
constexpr std::size_t kLogOffsetAt = 72;

using HeaderBytes = std::array<std::uint8_t, 4096>;

/// The checksum of a structure that has it at its fifth byte.
bool checksum_matches(std::span<std::uint8_t> bytes) {
  const auto stored = load_le<std::uint32_t>(&bytes[kChecksumAt]);
  store_le<std::uint32_t>(&bytes[kChecksumAt], 0);
  const bool matches = crc32c(bytes.data(), bytes.size()) == stored;
  store_le<std::uint32_t>(&bytes[kChecksumAt], stored);
  return matches;
}

bool begins(std::span<const std::uint8_t> bytes, std::string_view signature) {
  return bytes.size() >= signature.size() &&
         std::memcmp(bytes.data(), signature.data(), signature.size()) == 0;
}

}  // namespace

bool is_vhdx(std::span<const std::uint8_t> start) { return begins(start, "vhdxfile"); }

Task<Result<std::unique_ptr<VhdxImage>>> VhdxImage::open(std::unique_ptr<BlockDevice> file,
                                                         VhdxDirtyLog log) {
  std::unique_ptr<VhdxImage> image(new VhdxImage(std::move(file)));
  auto opened = co_await image->open_all(log);
  if (!opened) {
    co_return std::unexpected(opened.error());
  }
  co_return image;
}

Task<Result<void>> VhdxImage::open_all(VhdxDirtyLog log) {
  std::array<std::uint8_t, 8> signature{};
  const iovec vec{signature.data(), std::min<std::size_t>(signature.size(), file_->size())};
  auto read = co_await file_->readv(0, {&vec, 1});
  if (!read) {
    co_return read;
  }
  if (!is_vhdx(signature)) {
    co_return error(ErrorCode::kInvalid,
                    "vhdx file identifier at offset 0: the signature 'vhdxfile' is missing");
  }
  auto header = co_await read_headers();
  if (!header) {
    co_return std::unexpected(header.error());
  }
  if (header->log_guid != VhdxGuid{}) {
    auto replayed = co_await replay(*header, log);
    if (!replayed) {
      co_return replayed;
    }
  }
  auto regions = co_await read_regions();
  if (!regions) {
    co_return regions;
  }
  auto metadata = co_await read_metadata();
  if (!metadata) {
    co_return metadata;
  }
  co_return judge();
}

Task<Result<VhdxImage::ActiveHeader>> VhdxImage::read_headers() {
  std::optional<ActiveHeader> active;
  bool other_version = false;
  for (const auto at : {kFirstHeader, kSecondHeader}) {
    HeaderBytes bytes{};
    auto read = co_await read_structure(*file_, "vhdx header", at, bytes.data(), bytes.size());
    if (!read) {
      co_return std::unexpected(read.error());
    }
    if (!begins(bytes, "head") || !checksum_matches(bytes)) {
      continue;
    }
    if (load_le<std::uint16_t>(&bytes[kVersionAt]) != 1 ||
        load_le<std::uint16_t>(&bytes[kLogVersionAt]) != 0) {
      other_version = true;
      continue;
    }
    ActiveHeader header{.sequence = load_le<std::uint64_t>(&bytes[kSequenceAt]),
                        .second = at == kSecondHeader,
                        .log_bytes = load_le<std::uint32_t>(&bytes[kLogBytesAt]),
                        .log_offset = load_le<std::uint64_t>(&bytes[kLogOffsetAt])};
    std::copy_n(&bytes[kLogGuidAt], header.log_guid.size(), header.log_guid.begin());
    if (!active || header.sequence > active->sequence) {
      active = header;
    }
  }
  if (!active && other_version) {
    co_return error(ErrorCode::kUnsupported,
                    "vhdx headers at offsets 0x10000 and 0x20000: the version is not known");
  }
  if (!active) {
    co_return corrupt("vhdx headers at offsets 0x10000 and 0x20000: neither is valid");
  }
  co_return *active;
}

Task<Result<void>> VhdxImage::replay(ActiveHeader header, VhdxDirtyLog log) {
  if (file_->read_only() && log == VhdxDirtyLog::kRefuse) {
    co_return error(
        ErrorCode::kPermission,
        fmt::format("VHDX image file '{0}' opened read-only, but contains a log that needs to be replayed\n"
                    "To replay the log, run:\nqemu-img check -r all '{0}'",
                    name()));
  }
  auto changes = co_await read_vhdx_log(*file_, header.log_offset, header.log_bytes, header.log_guid);
  if (!changes) {
    co_return std::unexpected(changes.error());
  }
  if (file_->read_only()) {
    file_ = overlay_changes(std::move(file_), std::move(*changes));
    co_return Result<void>{};
  }
  auto written = co_await changes->write_to(*file_);
  if (!written) {
    co_return written;
  }
  log_replayed_ = true;
  auto cleared = co_await clear_log(header);
  co_return cleared;
}

/// Both headers say that there is no log any more, the older one first, so that one is valid at any moment.
Task<Result<void>> VhdxImage::clear_log(ActiveHeader header) {
  const auto active_at = header.second ? kSecondHeader : kFirstHeader;
  const auto other_at = header.second ? kFirstHeader : kSecondHeader;
  HeaderBytes bytes{};
  auto read = co_await read_structure(*file_, "vhdx header", active_at, bytes.data(), bytes.size());
  if (!read) {
    co_return read;
  }
  std::fill_n(&bytes[kLogGuidAt], sizeof(VhdxGuid), std::uint8_t{0});
  auto sequence = header.sequence;
  for (const auto at : {other_at, active_at}) {
    ++sequence;
    store_le<std::uint64_t>(&bytes[kSequenceAt], sequence);
    store_le<std::uint32_t>(&bytes[kChecksumAt], 0);
    store_le<std::uint32_t>(&bytes[kChecksumAt], crc32c(bytes.data(), bytes.size()));
    auto written = co_await write_bytes(*file_, at, bytes.data(), bytes.size());
    if (!written) {
      co_return written;
    }
    auto flushed = co_await file_->flush();
    if (!flushed) {
      co_return flushed;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> VhdxImage::read_regions() {
  auto first = co_await read_region_table(kFirstRegionTable);
  if (first || first.error().code != ErrorCode::kCorrupt) {
    co_return first;
  }
  auto second = co_await read_region_table(kSecondRegionTable);
  // The first one's error tells more, if both are damaged.
  if (!second && second.error().code == ErrorCode::kCorrupt) {
    co_return first;
  }
  co_return second;
}

Task<Result<void>> VhdxImage::read_region_table(std::uint64_t at) {
  std::vector<std::uint8_t> bytes(kTableBytes);
  auto read = co_await read_structure(*file_, "vhdx region table", at, bytes.data(), bytes.size());
  if (!read) {
    co_return read;
  }
  const auto count = load_le<std::uint32_t>(&bytes[8]);
  if (!begins(bytes, "regi") || !checksum_matches(bytes) || count > kMaxEntries) {
    co_return corrupt(
        fmt::format("vhdx region table at offset {:#x}: the signature, the checksum or the number of "
                    "entries is wrong",
                    at));
  }
  table_region_ = {};
  metadata_region_ = {};
  for (std::size_t entry = 0; entry < count; ++entry) {
    const auto* from = &bytes[16 + entry * 32];
    VhdxGuid id;
    std::copy_n(from, id.size(), id.begin());
    const Region region{load_le<std::uint64_t>(from + 16), load_le<std::uint32_t>(from + 24)};
    if (region.offset < kMiB || region.offset > file_->size() ||
        region.bytes > file_->size() - region.offset) {
      co_return corrupt(
          fmt::format("vhdx region table at offset {:#x}: region {} ({} bytes at offset {:#x}) is not in "
                      "the file ({} bytes)",
                      at, text(id), region.bytes, region.offset, file_->size()));
    }
    if (id == kBlockTable || id == kMetadata) {
      auto& known = id == kBlockTable ? table_region_ : metadata_region_;
      if (known.offset != 0) {
        co_return corrupt(
            fmt::format("vhdx region table at offset {:#x}: region {} is there twice", at, text(id)));
      }
      known = region;
    } else if ((load_le<std::uint32_t>(from + 28) & 1) != 0) {
      co_return error(ErrorCode::kUnsupported,
                      fmt::format("vhdx region table at offset {:#x}: the required region {} is not known",
                                  at, text(id)));
    }
  }
  if (table_region_.offset == 0 || metadata_region_.offset == 0) {
    co_return corrupt(
        fmt::format("vhdx region table at offset {:#x}: the block allocation table or the metadata region "
                    "is missing",
                    at));
  }
  co_return Result<void>{};
}

Task<Result<void>> VhdxImage::read_metadata() {
  const auto at = metadata_region_.offset;
  std::vector<std::uint8_t> bytes(std::min(kTableBytes, metadata_region_.bytes));
  auto read = co_await read_structure(*file_, "vhdx metadata table", at, bytes.data(), bytes.size());
  if (!read) {
    co_return read;
  }
  if (bytes.size() < kTableBytes || !begins(bytes, "metadata") ||
      load_le<std::uint16_t>(&bytes[10]) > kMaxEntries) {
    co_return corrupt(
        fmt::format("vhdx metadata table at offset {:#x}: the signature, the length or the number of "
                    "entries is wrong",
                    at));
  }
  const auto count = load_le<std::uint16_t>(&bytes[10]);
  for (std::size_t entry = 0; entry < count; ++entry) {
    const auto* from = &bytes[32 + entry * 32];
    VhdxGuid id;
    std::copy_n(from, id.size(), id.begin());
    const auto offset = load_le<std::uint32_t>(from + 16);
    const auto length = load_le<std::uint32_t>(from + 20);
    if (offset > metadata_region_.bytes || length > metadata_region_.bytes - offset) {
      co_return corrupt(
          fmt::format("vhdx metadata table at offset {:#x}: item {} ({} bytes at {:#x}) is not in the "
                      "region of {} bytes",
                      at, text(id), length, offset, metadata_region_.bytes));
    }
    auto item = co_await read_item(id, at + offset, length, load_le<std::uint32_t>(from + 24));
    if (!item) {
      co_return item;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> VhdxImage::read_item(VhdxGuid id, std::uint64_t offset, std::uint32_t bytes,
                                        std::uint32_t flags) {
  if (id == kPage83 || id == kPhysicalSector || id == kParentLocator) {
    co_return Result<void>{};  // a parent shows in the file parameters
  }
  if (id != kFileParameters && id != kDiskSize && id != kLogicalSector) {
    if ((flags & kRequiredItem) != 0) {
      co_return error(
          ErrorCode::kUnsupported,
          fmt::format("vhdx metadata at offset {:#x}: the required item {} is not known", offset, text(id)));
    }
    co_return Result<void>{};
  }
  std::array<std::uint8_t, 8> value{};
  const std::size_t wanted = id == kLogicalSector ? 4 : 8;
  if (bytes < wanted) {
    co_return corrupt(
        fmt::format("vhdx metadata at offset {:#x}: item {} has only {} bytes", offset, text(id), bytes));
  }
  auto read = co_await read_structure(*file_, "vhdx metadata item", offset, value.data(), wanted);
  if (!read) {
    co_return read;
  }
  if (id == kFileParameters) {
    block_bytes_ = load_le<std::uint32_t>(&value[0]);
    parameters_ = load_le<std::uint32_t>(&value[4]);
  } else if (id == kDiskSize) {
    size_ = load_le<std::uint64_t>(&value[0]);
  } else {
    sector_bytes_ = load_le<std::uint32_t>(&value[0]);
  }
  co_return Result<void>{};
}

Result<void> VhdxImage::judge() {
  const auto at = fmt::format("vhdx metadata at offset {:#x}", metadata_region_.offset);
  if ((parameters_ & kHasParent) != 0) {
    return error(ErrorCode::kUnsupported, at + ": differencing images are not supported");
  }
  if (!std::has_single_bit(block_bytes_) || block_bytes_ < kMiB || block_bytes_ > 256 * kMiB) {
    return corrupt(fmt::format("{}: a block size of {} is not a power of two between 1 MiB and 256 MiB", at,
                               block_bytes_));
  }
  if (sector_bytes_ != 512 && sector_bytes_ != 4096) {
    return corrupt(fmt::format("{}: a logical sector size of {} is neither 512 nor 4096", at, sector_bytes_));
  }
  if (size_ > kMaxDiskBytes || size_ % sector_bytes_ != 0) {
    return corrupt(
        fmt::format("{}: a disk size of {} is too large or not a multiple of the sector size", at, size_));
  }
  chunk_blocks_ = (std::uint64_t{1} << 23) * sector_bytes_ / block_bytes_;
  const auto blocks = (size_ + block_bytes_ - 1) / block_bytes_;
  const auto entries = blocks == 0 ? 0 : blocks + (blocks - 1) / chunk_blocks_;
  if (entries > table_region_.bytes / 8) {
    return corrupt(
        fmt::format("vhdx block allocation table at offset {:#x}: {} bytes are too few for the {} entries of "
                    "a disk of {} bytes",
                    table_region_.offset, table_region_.bytes, entries, size_));
  }
  table_.emplace(*file_, Table::Shape{.what = "vhdx block allocation table",
                                      .offset = table_region_.offset,
                                      .entries = entries,
                                      .entry_bytes = 8});
  return {};
}

Task<Result<Place>> VhdxImage::locate(std::uint64_t offset, std::uint64_t bytes) {
  Place place{};
  bytes = std::min(bytes, kMaxEntriesAnAnswer * block_bytes_);
  std::uint64_t done = 0;
  while (done < bytes) {
    const auto block = (offset + done) / block_bytes_;
    const auto in_block = (offset + done) % block_bytes_;
    const auto index = block + block / chunk_blocks_;
    auto entry = co_await table_->get(index);
    if (!entry) {
      co_return std::unexpected(entry.error());
    }
    const auto state = *entry & 7;
    const auto host = (*entry & ~(kMiB - 1)) + in_block;
    const bool data = state == kFullyPresent;
    if (!data && state > kUnmapped) {
      co_return corrupt(
          fmt::format("vhdx block allocation table entry {} at offset {:#x}: state {} is not allowed in an "
                      "image without a parent",
                      index, table_region_.offset + index * 8, state));
    }
    if (data && host < kMiB) {
      co_return corrupt(
          fmt::format("vhdx block allocation table entry {} at offset {:#x} names the headers of the file",
                      index, table_region_.offset + index * 8));
    }
    if (done == 0) {
      place = {.kind = data ? PlaceKind::kData : PlaceKind::kZero,
               .bytes = 0,
               .file = data ? file_.get() : nullptr,
               .host_offset = data ? host : 0};
    } else if (data != (place.kind == PlaceKind::kData) || (data && host != place.host_offset + done)) {
      break;
    }
    done += std::min(bytes - done, block_bytes_ - in_block);
  }
  place.bytes = done;
  co_return place;
}

}  // namespace whistler::formats
