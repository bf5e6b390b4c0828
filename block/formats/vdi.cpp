#include "block/formats/vdi.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/bytes.hpp"

namespace whistler::formats {

namespace {

constexpr std::uint32_t kSignature = 0xbeda107f;
constexpr std::uint32_t kVersion = 0x00010001;
constexpr std::uint32_t kSector = 512;
constexpr std::uint32_t kDynamic = 1;
constexpr std::uint32_t kFixed = 2;
/// Entries of this and more are blocks without a place.
constexpr std::uint64_t kDiscarded = 0xfffffffe;
constexpr std::uint32_t kUnallocated = 0xffffffff;
constexpr std::size_t kMaxMessages = 1000;

struct DiskHeader {
  char text[64] = {};
  Le<std::uint32_t> signature;
  Le<std::uint32_t> version;
  Le<std::uint32_t> header_size;
  Le<std::uint32_t> image_type;
  Le<std::uint32_t> flags;
  char description[256] = {};
  Le<std::uint32_t> map_offset;
  Le<std::uint32_t> data_offset;
  Le<std::uint32_t> cylinders;
  Le<std::uint32_t> heads;
  Le<std::uint32_t> sectors;
  Le<std::uint32_t> sector_size;
  Le<std::uint32_t> unused;
  Le<std::uint64_t> disk_bytes;
  Le<std::uint32_t> block_size;
  Le<std::uint32_t> block_extra;
  Le<std::uint32_t> blocks;
  Le<std::uint32_t> blocks_allocated;
  std::uint8_t image_uuid[16] = {};
  std::uint8_t snapshot_uuid[16] = {};
  std::uint8_t link_uuid[16] = {};
  std::uint8_t parent_uuid[16] = {};
  std::uint8_t rest[56] = {};
};
static_assert(sizeof(DiskHeader) == 512);

bool is_null(std::span<const std::uint8_t> uuid) {
  return std::all_of(uuid.begin(), uuid.end(), [](std::uint8_t byte) { return byte == 0; });
}

/// What makes an image unusable here, or "".
std::string refusal(const DiskHeader& header) {
  const std::uint32_t version = header.version;
  if (header.disk_bytes > kVdiMaxBytes) {
    return fmt::format("Unsupported VDI image size (size is {:#x}, max supported is {:#x})",
                       std::uint64_t{header.disk_bytes}, kVdiMaxBytes);
  }
  if (header.signature != kSignature) {
    return fmt::format("Image not in VDI format (bad signature {:08x})", std::uint32_t{header.signature});
  }
  if (version != kVersion) {
    return fmt::format("unsupported VDI image (version {}.{})", version >> 16, version & 0xffff);
  }
  if (header.map_offset % kSector != 0) {
    return fmt::format("unsupported VDI image (unaligned block map offset {:#x})",
                       std::uint32_t{header.map_offset});
  }
  if (header.data_offset % kSector != 0) {
    return fmt::format("unsupported VDI image (unaligned data offset {:#x})",
                       std::uint32_t{header.data_offset});
  }
  if (header.sector_size != kSector) {
    return fmt::format("unsupported VDI image (sector size {} is not {})", std::uint32_t{header.sector_size},
                       kSector);
  }
  if (header.block_size != kVdiBlockBytes) {
    return fmt::format("unsupported VDI image (block size {} is not {})", std::uint32_t{header.block_size},
                       kVdiBlockBytes);
  }
  if (header.disk_bytes > header.blocks * kVdiBlockBytes) {
    return fmt::format("unsupported VDI image (disk size {}, image bitmap has room for {})",
                       std::uint64_t{header.disk_bytes}, header.blocks * kVdiBlockBytes);
  }
  if (!is_null(header.link_uuid)) {
    return "unsupported VDI image (non-NULL link UUID)";
  }
  if (!is_null(header.parent_uuid)) {
    return "unsupported VDI image (non-NULL parent UUID)";
  }
  if (header.blocks > kVdiMaxBlocks) {
    return fmt::format("unsupported VDI image (too many blocks {}, max is {})", std::uint32_t{header.blocks},
                       kVdiMaxBlocks);
  }
  if (header.image_type != kDynamic && header.image_type != kFixed) {
    return fmt::format("unsupported VDI image (type {} is neither dynamic nor fixed)",
                       std::uint32_t{header.image_type});
  }
  if (header.block_extra != 0) {
    return fmt::format("unsupported VDI image ({} extra bytes before each block)",
                       std::uint32_t{header.block_extra});
  }
  const auto map_end = header.map_offset + std::uint64_t{header.blocks} * 4;
  if (header.map_offset < sizeof(DiskHeader) || header.data_offset < map_end) {
    return fmt::format(
        "unsupported VDI image (the block map at offset {:#x} with {} entries overlaps the header "
        "or the data at offset {:#x})",
        std::uint32_t{header.map_offset}, std::uint32_t{header.blocks}, std::uint32_t{header.data_offset});
  }
  return {};
}

void random_uuid(std::uint8_t (&uuid)[16]) {
  std::random_device source;
  for (auto& byte : uuid) {
    byte = static_cast<std::uint8_t>(source());
  }
  uuid[7] = static_cast<std::uint8_t>((uuid[7] & 0x0f) | 0x40);
  uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3f) | 0x80);
}

}  // namespace

bool is_vdi(std::span<const std::uint8_t> start) {
  return start.size() >= 68 && load_le<std::uint32_t>(&start[64]) == kSignature;
}

Task<Result<std::unique_ptr<VdiImage>>> VdiImage::open(std::unique_ptr<BlockDevice> file) {
  DiskHeader disk;
  const iovec vec{&disk, std::min<std::size_t>(sizeof disk, file->size())};
  auto read = co_await file->readv(0, {&vec, 1});
  if (!read) {
    co_return std::unexpected(read.error());
  }
  if (const auto why = refusal(disk); !why.empty()) {
    co_return fail(ErrorCode::kUnsupported, fmt::format("{}: {}", file->name(), why));
  }
  const VdiHeader header{.image_type = disk.image_type,
                         .map_offset = disk.map_offset,
                         .data_offset = disk.data_offset,
                         .disk_bytes = align_up(disk.disk_bytes, kSector),
                         .blocks = disk.blocks,
                         .blocks_allocated = disk.blocks_allocated};
  Table map(*file, {.what = "vdi block map", .offset = header.map_offset, .entries = header.blocks});
  co_return std::unique_ptr<VdiImage>(new VdiImage(std::move(file), header, std::move(map)));
}

Task<Result<Place>> VdiImage::locate(std::uint64_t offset, std::uint64_t bytes) {
  Place place{};
  bytes = std::min(bytes, kMaxEntriesAnAnswer * kVdiBlockBytes);
  std::uint64_t done = 0;
  while (done < bytes) {
    const auto in_block = (offset + done) % kVdiBlockBytes;
    const auto piece = std::min(bytes - done, kVdiBlockBytes - in_block);
    auto entry = co_await map_.get((offset + done) / kVdiBlockBytes);
    if (!entry) {
      co_return std::unexpected(entry.error());
    }
    const auto kind = *entry < kDiscarded ? PlaceKind::kData : PlaceKind::kZero;
    const auto host = kind == PlaceKind::kData ? block_offset(*entry) + in_block : 0;
    if (kind == PlaceKind::kData && *entry >= header_.blocks) {
      co_return corrupt(
          fmt::format("vdi block map entry {} at offset {:#x} names block {}, but there are only {}",
                      (offset + done) / kVdiBlockBytes,
                      header_.map_offset + (offset + done) / kVdiBlockBytes * 4, *entry, header_.blocks));
    }
    if (done == 0) {
      place = {.kind = kind,
               .bytes = 0,
               .file = kind == PlaceKind::kData ? file_.get() : nullptr,
               .host_offset = host,
               .plain = header_.image_type == kFixed};
    } else if (kind != place.kind || (kind == PlaceKind::kData && host != place.host_offset + done)) {
      break;
    }
    done += piece;
  }
  place.bytes = done;
  co_return place;
}

Task<Result<void>> VdiImage::find_next_block() {
  auto highest = co_await map_.highest(header_.blocks, kDiscarded);
  if (!highest) {
    co_return std::unexpected(highest.error());
  }
  next_block_ = *highest ? **highest + 1 : 0;
  next_known_ = true;
  co_return Result<void>{};
}

Task<Result<void>> VdiImage::allocate(std::uint64_t offset, IoVec from) {
  if (!next_known_) {
    auto found = co_await find_next_block();
    if (!found) {
      co_return found;
    }
  }
  if (next_block_ >= header_.blocks) {
    co_return corrupt(
        fmt::format("vdi block map: every one of the {} blocks is taken, but disk offset {:#x} has none",
                    header_.blocks, offset));
  }
  const auto in_block = offset % kVdiBlockBytes;
  const auto at = block_offset(next_block_);
  // What is written of the block comes first, then the rest as a hole, then the entry that makes it visible.
  // The space may hold the remains of an earlier attempt.
  if (file_->size() > at) {
    auto cleared = co_await file_->write_zeroes(at, std::min(kVdiBlockBytes, file_->size() - at));
    if (!cleared) {
      co_return cleared;
    }
  }
  if (file_->size() < at + kVdiBlockBytes) {
    auto grown = co_await file_->resize(at + kVdiBlockBytes);
    if (!grown) {
      co_return grown;
    }
  }
  auto written = co_await file_->writev(at + in_block, from);
  if (!written) {
    co_return written;
  }
  auto mapped = co_await map_.set(offset / kVdiBlockBytes, next_block_);
  if (!mapped) {
    next_known_ = false;  // whether the entry is in the file is not known
    co_return mapped;
  }
  ++next_block_;
  ++header_.blocks_allocated;
  header_dirty_ = true;
  co_return Result<void>{};
}

Task<Result<void>> VdiImage::write_header() {
  if (!header_dirty_) {
    co_return Result<void>{};
  }
  const Le<std::uint32_t> count(header_.blocks_allocated);
  header_dirty_ = false;
  auto written = co_await write_bytes(*file_, offsetof(DiskHeader, blocks_allocated), &count, sizeof count);
  header_dirty_ = header_dirty_ || !written;
  co_return written;
}

Task<Result<VdiCheck>> VdiImage::check() {
  VdiCheck report;
  const auto complain = [&report](std::string line) {
    ++report.errors;
    if (report.messages.size() < kMaxMessages) {
      report.messages.push_back(std::move(line));
    }
  };
  const auto wanted = (size_ + kVdiBlockBytes - 1) / kVdiBlockBytes;
  if (map_.end() > file_->size()) {
    co_return corrupt(
        fmt::format("vdi block map ({} entries at offset {:#x}) is beyond the end of the file ({} bytes)",
                    header_.blocks, header_.map_offset, file_->size()));
  }
  std::vector<bool> used(header_.blocks);
  for (std::uint64_t index = 0; index < wanted; ++index) {
    auto entry = co_await map_.get(index);
    if (!entry) {
      co_return std::unexpected(entry.error());
    }
    if (*entry >= kDiscarded) {
      continue;
    }
    if (*entry >= header_.blocks) {
      complain(fmt::format("ERROR: block index {} too large, is {}", index, *entry));
      continue;
    }
    ++report.allocated;
    report.end_offset = std::max(report.end_offset, block_offset(*entry) + kVdiBlockBytes);
    if (used[*entry]) {
      complain(fmt::format("ERROR: block index {} also used by {}", *entry, *entry));
    }
    used[*entry] = true;
  }
  if (report.allocated != header_.blocks_allocated) {
    complain(fmt::format("ERROR: allocated blocks mismatch, is {}, should be {}", report.allocated,
                         header_.blocks_allocated));
  }
  co_return report;
}

Task<Result<void>> create_vdi(BlockDevice& file, VdiCreateOptions options) {
  if (options.size > kVdiMaxBytes) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("Unsupported VDI image size (size is {:#x}, max supported is {:#x})",
                               options.size, kVdiMaxBytes));
  }
  const auto blocks = static_cast<std::uint32_t>((options.size + kVdiBlockBytes - 1) / kVdiBlockBytes);
  const auto map_bytes = align_up(std::uint64_t{blocks} * 4, kSector);
  DiskHeader header;
  constexpr std::string_view kText = "<<< Whistler Virtual Disk Image >>>\n";
  std::copy(kText.begin(), kText.end(), header.text);
  header.signature = kSignature;
  header.version = kVersion;
  header.header_size = 0x180;
  header.image_type = options.fixed ? kFixed : kDynamic;
  header.map_offset = sizeof header;
  header.data_offset = static_cast<std::uint32_t>(sizeof header + map_bytes);
  header.sector_size = kSector;
  header.disk_bytes = options.size;
  header.block_size = static_cast<std::uint32_t>(kVdiBlockBytes);
  header.blocks = blocks;
  header.blocks_allocated = options.fixed ? blocks : 0;
  random_uuid(header.image_uuid);
  random_uuid(header.snapshot_uuid);
  auto grown = co_await file.resize(header.data_offset + (options.fixed ? blocks * kVdiBlockBytes : 0));
  if (!grown) {
    co_return grown;
  }
  auto written = co_await write_bytes(file, 0, &header, sizeof header);
  if (!written) {
    co_return written;
  }
  // The map, in pieces: that of the largest disk has 2 GiB.
  constexpr std::uint64_t kPiece = 1 << 18;
  std::vector<std::uint8_t> piece;
  for (std::uint64_t first = 0; first < blocks; first += kPiece) {
    const auto count = std::min(kPiece, blocks - first);
    piece.assign(align_up(count * 4, kSector), 0);
    for (std::uint64_t i = 0; i < count; ++i) {
      store_le<std::uint32_t>(&piece[i * 4],
                              options.fixed ? static_cast<std::uint32_t>(first + i) : kUnallocated);
    }
    auto mapped = co_await write_bytes(file, sizeof header + first * 4, piece.data(), piece.size());
    if (!mapped) {
      co_return mapped;
    }
  }
  co_return Result<void>{};
}

}  // namespace whistler::formats
