#include "block/formats/vhd.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "block/iovec.hpp"

namespace whistler::formats {

namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::uint32_t kFixedType = 2;
constexpr std::uint32_t kDynamicType = 3;
constexpr std::uint32_t kDifferencingType = 4;
constexpr std::uint64_t kMaxSectors = 0xff000000;  // 2040 GiB
constexpr std::uint64_t kMaxGeometrySectors = std::uint64_t{65535} * 16 * 255;
constexpr std::uint32_t kUnallocated = 0xffffffff;
constexpr std::uint32_t kDefaultBlockBytes = 2 << 20;
constexpr std::int64_t kEpoch2000 = 946684800;

struct Footer {
  char cookie[8] = {'c', 'o', 'n', 'e', 'c', 't', 'i', 'x'};
  Be<std::uint32_t> features = 2;
  Be<std::uint32_t> version = 0x10000;
  Be<std::uint64_t> data_offset;
  Be<std::uint32_t> timestamp;
  char creator[4] = {};
  Be<std::uint32_t> creator_version = 0x00050003;
  char creator_system[4] = {'W', 'i', '2', 'k'};
  Be<std::uint64_t> original_size;
  Be<std::uint64_t> current_size;
  Be<std::uint16_t> cylinders;
  std::uint8_t heads = 0;
  std::uint8_t sectors = 0;
  Be<std::uint32_t> type;
  Be<std::uint32_t> checksum;
  std::uint8_t uuid[16] = {};
  std::uint8_t saved_state = 0;
  std::uint8_t reserved[427] = {};
};
static_assert(sizeof(Footer) == VhdImage::kFooterBytes);

struct DynamicHeader {
  char cookie[8] = {'c', 'x', 's', 'p', 'a', 'r', 's', 'e'};
  Be<std::uint64_t> data_offset = ~std::uint64_t{0};
  Be<std::uint64_t> table_offset;
  Be<std::uint32_t> version = 0x10000;
  Be<std::uint32_t> entries;
  Be<std::uint32_t> block_bytes;
  Be<std::uint32_t> checksum;
  std::uint8_t parent_uuid[16] = {};
  Be<std::uint32_t> parent_timestamp;
  Be<std::uint32_t> reserved;
  std::uint8_t parent_name[512] = {};
  std::uint8_t parent_locators[8][24] = {};
  std::uint8_t rest[256] = {};
};
static_assert(sizeof(DynamicHeader) == 1024);

/// The complement of the sum of all bytes, those of the checksum field counting as zeroes.
template <typename T>
std::uint32_t checksum_of(T structure) {
  structure.checksum = 0;
  std::uint32_t sum = 0;
  for (const auto byte : std::span(reinterpret_cast<const std::uint8_t*>(&structure), sizeof structure)) {
    sum += byte;
  }
  return ~sum;
}

bool has_cookie(const char (&cookie)[8], std::string_view wanted) {
  return std::memcmp(cookie, wanted.data(), sizeof cookie) == 0;
}

/// Programs that mean the current size: the others go by the geometry.
bool means_current_size(const Footer& footer) {
  const std::string_view creator(footer.creator, sizeof footer.creator);
  return creator == "win " || creator == "d2v " || creator == "qem2" ||
         creator == std::string_view("tap\0", 4);
}

}  // namespace

VhdGeometry vhd_geometry(std::uint64_t sectors) {
  sectors = std::min(sectors, kMaxGeometrySectors);
  std::uint64_t per_track = 255;
  std::uint64_t heads = 16;
  std::uint64_t tracks = sectors / per_track;
  if (sectors < std::uint64_t{65535} * 16 * 63) {
    per_track = 17;
    tracks = sectors / per_track;
    heads = std::max<std::uint64_t>((tracks + 1023) / 1024, 4);
    if (tracks >= heads * 1024 || heads > 16) {
      per_track = 31;
      heads = 16;
      tracks = sectors / per_track;
    }
    if (tracks >= heads * 1024) {
      per_track = 63;
      heads = 16;
      tracks = sectors / per_track;
    }
  }
  return {.cylinders = static_cast<std::uint16_t>(tracks / heads),
          .heads = static_cast<std::uint8_t>(heads),
          .sectors = static_cast<std::uint8_t>(per_track)};
}

bool is_vhd(std::span<const std::uint8_t> start) {
  return start.size() >= 8 && std::memcmp(start.data(), "conectix", 8) == 0;
}

Task<Result<std::unique_ptr<VhdImage>>> VhdImage::open(std::unique_ptr<BlockDevice> file, VhdSize size) {
  std::unique_ptr<VhdImage> image(new VhdImage(std::move(file)));
  auto opened = co_await image->open_footer(size);
  if (!opened) {
    co_return std::unexpected(opened.error());
  }
  co_return image;
}

Task<Result<void>> VhdImage::open_footer(VhdSize size) {
  const auto file_bytes = file_->size();
  if (file_bytes < kFooterBytes) {
    co_return error(ErrorCode::kInvalid,
                    file_bytes == 0 ? "File too small for a VHD header" : "invalid VPC image");
  }
  auto read = co_await read_structure(*file_, "vhd footer", 0, footer_, kFooterBytes);
  if (!read) {
    co_return read;
  }
  Footer footer;
  std::memcpy(&footer, footer_, sizeof footer);
  const bool at_start = has_cookie(footer.cookie, "conectix");
  if (!at_start) {
    read = co_await read_structure(*file_, "vhd footer", file_bytes - kFooterBytes, footer_, kFooterBytes);
    if (!read) {
      co_return read;
    }
    std::memcpy(&footer, footer_, sizeof footer);
    if (!has_cookie(footer.cookie, "conectix") || footer.type != kFixedType) {
      co_return error(ErrorCode::kInvalid, "invalid VPC image");
    }
  }
  if (checksum_of(footer) != footer.checksum) {
    co_return error(ErrorCode::kCorrupt, "Incorrect header checksum");
  }
  const VhdGeometry geometry{footer.cylinders, footer.heads, footer.sectors};
  auto sectors = geometry.total();
  // The largest geometry stands for "too large for one".
  const bool current = size == VhdSize::kCurrent || sectors == kMaxGeometrySectors ||
                       (size == VhdSize::kByCreator && means_current_size(footer));
  if (current) {
    sectors = footer.current_size / kSector;
  }
  if (sectors > kMaxSectors) {
    co_return error(ErrorCode::kInvalid,
                    fmt::format("vhd footer: {} sectors are more than the allowed {}", sectors, kMaxSectors));
  }
  size_ = sectors * kSector;
  if (footer.type == kDynamicType) {
    auto opened = co_await open_dynamic(footer.data_offset);
    co_return opened;
  }
  if (footer.type == kDifferencingType) {
    co_return error(ErrorCode::kUnsupported, "vhd footer: differencing images are not supported");
  }
  if (footer.type != kFixedType) {
    co_return error(ErrorCode::kUnsupported,
                    fmt::format("vhd footer: the disk type {} is none of fixed (2), dynamic (3)",
                                std::uint32_t{footer.type}));
  }
  if (size_ > file_bytes - kFooterBytes) {
    co_return corrupt(
        fmt::format("vhd footer at offset {:#x}: the fixed disk of {} bytes does not fit in the file",
                    at_start ? 0 : file_bytes - kFooterBytes, size_));
  }
  co_return Result<void>{};
}

Task<Result<void>> VhdImage::open_dynamic(std::uint64_t header_offset) {
  DynamicHeader header;
  auto read = co_await read_structure(*file_, "vhd dynamic header", header_offset, &header, sizeof header);
  if (!read) {
    co_return read;
  }
  if (!has_cookie(header.cookie, "cxsparse")) {
    co_return error(ErrorCode::kCorrupt, "Invalid header magic");
  }
  const std::uint32_t block_bytes = header.block_bytes;
  const std::uint32_t entries = header.entries;
  if (!std::has_single_bit(block_bytes) || block_bytes < kSector) {
    co_return error(ErrorCode::kCorrupt, fmt::format("Invalid block size {}", block_bytes));
  }
  if (entries > 0x7fffffff / 4) {
    co_return error(ErrorCode::kCorrupt,
                    fmt::format("Max Table Entries too large ({})", std::bit_cast<std::int32_t>(entries)));
  }
  if (std::uint64_t{entries} * block_bytes < size_) {
    co_return error(ErrorCode::kCorrupt, "Page table too small");
  }
  block_bytes_ = block_bytes;
  bitmap_bytes_ = align_up(block_bytes / kSector / 8, kSector);
  const std::uint64_t table_offset = header.table_offset;
  if (table_offset > file_->size()) {
    co_return corrupt(fmt::format("vhd block table at offset {:#x} is beyond the end of the file ({} bytes)",
                                  table_offset, file_->size()));
  }
  table_.emplace(*file_, Table::Shape{.what = "vhd block table",
                                      .offset = table_offset,
                                      .entries = entries,
                                      .order = Table::Order::kBig});
  auto highest = co_await table_->highest(entries, kUnallocated);
  if (!highest) {
    co_return std::unexpected(highest.error());
  }
  free_offset_ = align_up(table_->end(), kSector);
  if (*highest) {
    free_offset_ = std::max(free_offset_, **highest * kSector + bitmap_bytes_ + block_bytes_);
  }
  if (free_offset_ > file_->size()) {
    co_return error(
        ErrorCode::kCorrupt,
        "block-vpc: free_data_block_offset points after the end of file. The image has been truncated.");
  }
  co_return Result<void>{};
}

Task<Result<Place>> VhdImage::locate(std::uint64_t offset, std::uint64_t bytes) {
  if (!table_) {
    co_return Place{
        .kind = PlaceKind::kData, .bytes = bytes, .file = file_.get(), .host_offset = offset, .plain = true};
  }
  Place place{.kind = PlaceKind::kZero};
  bytes = std::min(bytes, kMaxEntriesAnAnswer * block_bytes_);
  std::uint64_t done = 0;
  while (done < bytes) {
    const auto in_block = (offset + done) % block_bytes_;
    auto entry = co_await table_->get((offset + done) / block_bytes_);
    if (!entry) {
      co_return std::unexpected(entry.error());
    }
    // Blocks are never next to each other: there is a bitmap before each. Holes are joined.
    const bool data = *entry != kUnallocated;
    if (data && done == 0) {
      if (*entry * kSector < sizeof(Footer)) {
        co_return corrupt(fmt::format("vhd block table entry {} names offset {:#x}, where the header is",
                                      offset / block_bytes_, *entry * kSector));
      }
      co_return Place{.kind = PlaceKind::kData,
                      .bytes = std::min(bytes, block_bytes_ - in_block),
                      .file = file_.get(),
                      .host_offset = *entry * kSector + bitmap_bytes_ + in_block};
    }
    if (data) {
      break;
    }
    done += std::min(bytes - done, block_bytes_ - in_block);
  }
  place.bytes = done;
  co_return place;
}

Task<Result<void>> VhdImage::allocate(std::uint64_t offset, IoVec from) {
  const auto at = free_offset_;
  const auto data_at = at + bitmap_bytes_;
  const auto end = data_at + block_bytes_;
  if (at / kSector >= kUnallocated) {
    co_return error(ErrorCode::kNoSpace, "vhd: the file has no room for further blocks");
  }
  // The new footer first: then there is one at the end of the file at any moment. The old one goes when the
  // bitmap is written, and last the entry makes the block visible.
  if (file_->size() < end + kFooterBytes) {
    auto grown = co_await file_->resize(end + kFooterBytes);
    if (!grown) {
      co_return grown;
    }
  }
  auto written = co_await write_bytes(*file_, end, footer_, kFooterBytes);
  if (!written) {
    co_return written;
  }
  auto cleared = co_await file_->write_zeroes(data_at, block_bytes_);
  if (!cleared) {
    co_return cleared;
  }
  written = co_await file_->writev(data_at + offset % block_bytes_, from);
  if (!written) {
    co_return written;
  }
  const std::vector<std::uint8_t> bitmap(bitmap_bytes_, 0xff);
  written = co_await write_bytes(*file_, at, bitmap.data(), bitmap.size());
  if (!written) {
    co_return written;
  }
  auto mapped = co_await table_->set(offset / block_bytes_, at / kSector);
  // Whether a failed entry is in the file is not known, so its space is not used again.
  free_offset_ = end;
  co_return mapped;
}

Task<Result<void>> VhdImage::before_write(std::uint64_t offset) {
  if (!table_ || full_block_ == offset / block_bytes_) {
    co_return Result<void>{};
  }
  RangeLock::Hold hold(allocation_, 0, 1, RangeLock::Mode::kExclusive);
  co_await hold;
  const auto number = offset / block_bytes_;
  auto entry = co_await table_->get(number);
  if (!entry) {
    co_return std::unexpected(entry.error());
  }
  std::vector<std::uint8_t> bitmap(bitmap_bytes_);
  auto read =
      co_await read_structure(*file_, "vhd sector bitmap", *entry * kSector, bitmap.data(), bitmap.size());
  if (!read) {
    co_return read;
  }
  if (std::any_of(bitmap.begin(), bitmap.end(), [](std::uint8_t byte) { return byte != 0xff; })) {
    std::fill(bitmap.begin(), bitmap.end(), std::uint8_t{0xff});
    auto written = co_await write_bytes(*file_, *entry * kSector, bitmap.data(), bitmap.size());
    if (!written) {
      co_return written;
    }
  }
  full_block_ = number;
  co_return Result<void>{};
}

namespace {

/// The footer of a new image, or why there can be none.
Result<Footer> make_footer(const VhdCreateOptions& options) {
  auto sectors = (options.size + kSector - 1) / kSector;
  const auto too_large = [] {
    return fail(ErrorCode::kInvalid, "The image size is too large for file format 'vpc'");
  };
  if (options.size > kMaxSectors * kSector) {
    return too_large();
  }
  auto geometry = vhd_geometry(options.force_size ? kMaxGeometrySectors : sectors);
  if (!options.force_size && sectors == 0) {
    geometry = {};
  }
  if (!options.force_size) {
    for (auto tried = sectors; geometry.total() < sectors && geometry.total() < kMaxGeometrySectors;
         ++tried) {
      geometry = vhd_geometry(tried);
    }
    if (geometry.total() < kMaxGeometrySectors) {
      sectors = geometry.total();
    }
  }
  Footer footer;
  std::memcpy(footer.creator, options.force_size ? "qem2" : "qemu", sizeof footer.creator);
  footer.original_size = sectors * kSector;
  footer.current_size = sectors * kSector;
  footer.cylinders = geometry.cylinders;
  footer.heads = geometry.heads;
  footer.sectors = geometry.sectors;
  footer.type = options.fixed ? kFixedType : kDynamicType;
  footer.data_offset = options.fixed ? ~std::uint64_t{0} : sizeof(Footer);
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  footer.timestamp = static_cast<std::uint32_t>(now - kEpoch2000);
  std::random_device source;
  for (auto& byte : footer.uuid) {
    byte = static_cast<std::uint8_t>(source());
  }
  footer.uuid[6] = static_cast<std::uint8_t>((footer.uuid[6] & 0x0f) | 0x40);
  footer.uuid[8] = static_cast<std::uint8_t>((footer.uuid[8] & 0x3f) | 0x80);
  footer.checksum = checksum_of(footer);
  return footer;
}

}  // namespace

Task<Result<void>> create_vhd(BlockDevice& file, VhdCreateOptions options) {
  const auto footer = make_footer(options);
  if (!footer) {
    co_return std::unexpected(footer.error());
  }
  const std::uint64_t disk_bytes = footer->current_size;
  if (options.fixed) {
    auto grown = co_await file.resize(disk_bytes + sizeof(Footer));
    if (!grown) {
      co_return grown;
    }
    auto written = co_await write_bytes(file, disk_bytes, &*footer, sizeof *footer);
    co_return written;
  }
  DynamicHeader header;
  const auto entries = (disk_bytes + kDefaultBlockBytes - 1) / kDefaultBlockBytes;
  header.table_offset = sizeof(Footer) + sizeof header;
  header.entries = static_cast<std::uint32_t>(entries);
  header.block_bytes = kDefaultBlockBytes;
  header.checksum = checksum_of(header);
  std::vector<std::uint8_t> table(align_up(entries * 4, kSector), 0xff);
  auto written = co_await file.resize(header.table_offset + table.size() + sizeof *footer);
  if (written) {
    written = co_await write_bytes(file, 0, &*footer, sizeof *footer);
  }
  if (written) {
    written = co_await write_bytes(file, sizeof(Footer), &header, sizeof header);
  }
  if (written && !table.empty()) {
    written = co_await write_bytes(file, header.table_offset, table.data(), table.size());
  }
  if (written) {
    written = co_await write_bytes(file, header.table_offset + table.size(), &*footer, sizeof *footer);
  }
  co_return written;
}

}  // namespace whistler::formats
