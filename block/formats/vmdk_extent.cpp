#include "block/formats/vmdk_extent.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>

#include "base/bytes.hpp"
#include "block/iovec.hpp"

namespace whistler::formats {

namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::uint32_t kHostedMagic = 0x564d444b;  // "KDMV"
constexpr std::uint32_t kEsxMagic = 0x44574f43;     // "COWD"
constexpr std::uint32_t kZeroGrainFlag = 1 << 2;
constexpr std::uint32_t kCompressedFlag = 1 << 16;
constexpr std::uint32_t kMarkersFlag = 1 << 17;
constexpr std::uint16_t kDeflate = 1;
constexpr std::uint64_t kDirectoryAtEnd = ~std::uint64_t{0};
constexpr std::uint32_t kFooterMarker = 3;
constexpr std::uint32_t kEsxTableEntries = 4096;
constexpr std::uint64_t kMaxGrain = 0x200000;
constexpr std::uint64_t kMaxDirectoryEntries = 32 << 20;
/// A grain is decompressed as a whole: larger ones are not taken if compressed.
constexpr std::uint64_t kMaxCompressedGrainBytes = 16 << 20;
constexpr std::uint64_t kMaxCapacity = std::uint64_t{1} << 53;

struct HostedHeader {
  Le<std::uint32_t> magic;
  Le<std::uint32_t> version;
  Le<std::uint32_t> flags;
  Le<std::uint64_t> capacity;
  Le<std::uint64_t> grain;
  Le<std::uint64_t> descriptor_offset;
  Le<std::uint64_t> descriptor_size;
  Le<std::uint32_t> entries_per_table;
  Le<std::uint64_t> redundant_directory_offset;
  Le<std::uint64_t> directory_offset;
  Le<std::uint64_t> overhead;
  std::uint8_t unclean = 0;
  char newlines[4] = {};
  Le<std::uint16_t> compression;
  std::uint8_t rest[433] = {};
};
static_assert(sizeof(HostedHeader) == kSector);

struct EsxHeader {
  Le<std::uint32_t> magic;
  Le<std::uint32_t> version;
  Le<std::uint32_t> flags;
  Le<std::uint32_t> capacity;
  Le<std::uint32_t> grain;
  Le<std::uint32_t> directory_offset;
  Le<std::uint32_t> directory_entries;
};

struct Marker {
  Le<std::uint64_t> value;
  Le<std::uint32_t> size;
  Le<std::uint32_t> type;
  std::uint8_t rest[496] = {};
};
static_assert(sizeof(Marker) == kSector);

VmdkSparseExtent::Header from_disk(const HostedHeader& disk) {
  return {.version = disk.version,
          .flags = disk.flags,
          .capacity = disk.capacity,
          .grain = disk.grain,
          .descriptor_offset = disk.descriptor_offset,
          .descriptor_size = disk.descriptor_size,
          .entries_per_table = disk.entries_per_table,
          .directory_offset = disk.directory_offset,
          .overhead = disk.overhead,
          .compression = disk.compression};
}

/// Inflates a zlib stream of at most to.size() bytes; how many there are, or nothing if it is damaged.
std::optional<std::size_t> inflate_grain(std::span<const std::uint8_t> from, std::span<std::uint8_t> to) {
  auto bytes = static_cast<uLongf>(to.size());
  if (uncompress(to.data(), &bytes, from.data(), static_cast<uLong>(from.size())) != Z_OK) {
    return std::nullopt;
  }
  return bytes;
}

}  // namespace

std::unexpected<Error> VmdkSparseExtent::corrupt(std::string_view what) const {
  return fail(ErrorCode::kCorrupt, fmt::format("{}: {}", file_.name(), what));
}

Task<Result<std::optional<VmdkSparseExtent::Header>>> VmdkSparseExtent::read_header(BlockDevice& file) {
  std::array<std::uint8_t, sizeof(HostedHeader)> bytes{};
  const iovec vec{bytes.data(), std::min<std::size_t>(bytes.size(), file.size())};
  auto read = co_await file.readv(0, {&vec, 1});
  if (!read) {
    co_return std::unexpected(read.error());
  }
  const auto magic = load_le<std::uint32_t>(bytes.data());
  if (magic == kHostedMagic) {
    HostedHeader disk;
    std::memcpy(&disk, bytes.data(), sizeof disk);
    co_return from_disk(disk);
  }
  if (magic == kEsxMagic) {
    EsxHeader disk;
    std::memcpy(&disk, bytes.data(), sizeof disk);
    co_return Header{.capacity = disk.capacity,
                     .grain = disk.grain,
                     .entries_per_table = kEsxTableEntries,
                     .directory_offset = disk.directory_offset};
  }
  co_return std::optional<Header>();
}

Task<Result<void>> VmdkSparseExtent::read_footer() {
  struct {
    Marker marker;
    HostedHeader footer;
    Marker end;
  } tail;
  static_assert(sizeof tail == 3 * kSector);
  const auto size = file_.size();
  if (size < sizeof(HostedHeader) + sizeof tail) {
    co_return corrupt(fmt::format("vmdk footer: the file has only {} bytes", size));
  }
  const auto at = size - sizeof tail;
  auto read = co_await read_structure(file_, "vmdk footer", at, &tail, sizeof tail);
  if (!read) {
    co_return read;
  }
  if (tail.footer.magic != kHostedMagic || tail.marker.size != 0 || tail.marker.type != kFooterMarker ||
      tail.end.value != 0 || tail.end.size != 0 || tail.end.type != 0) {
    co_return fail(ErrorCode::kCorrupt, fmt::format("{}: Invalid footer", file_.name()));
  }
  header_ = from_disk(tail.footer);
  if (header_.directory_offset == kDirectoryAtEnd) {
    co_return corrupt(fmt::format("vmdk footer at offset {:#x}: it does not say where the grain directory is",
                                  at + kSector));
  }
  co_return Result<void>{};
}

Result<void> VmdkSparseExtent::judge() const {
  const auto invalid = [this](std::string what) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: {}", file_.name(), what));
  };
  if (header_.version == 0 || header_.version > 3) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("{}: Unsupported VMDK version {}", file_.name(), header_.version));
  }
  if (header_.compression > kDeflate) {
    return fail(ErrorCode::kUnsupported, fmt::format("{}: vmdk header: compression method {} is not known",
                                                     file_.name(), header_.compression));
  }
  if (header_.entries_per_table > 512 && header_.entries_per_table != kEsxTableEntries) {
    return invalid("L2 table size too big");
  }
  if (header_.grain == 0 || header_.grain > kMaxGrain) {
    return invalid("Invalid granularity, image may be corrupt");
  }
  if (header_.entries_per_table == 0) {
    return invalid("vmdk header: a grain table has no entries");
  }
  const auto file_sectors = file_.size() / kSector;
  if (header_.overhead > file_sectors) {
    return invalid(fmt::format("File truncated, expecting at least {} bytes", header_.overhead * kSector));
  }
  const auto per_table = header_.grain * header_.entries_per_table;
  if (header_.capacity / per_table > kMaxDirectoryEntries) {
    return invalid("L1 size too big");
  }
  if (header_.capacity > kMaxCapacity) {
    return invalid(fmt::format("vmdk header: a capacity of {} sectors is too large", header_.capacity));
  }
  if (compressed_ && header_.grain * kSector > kMaxCompressedGrainBytes) {
    return invalid(
        fmt::format("vmdk header: compressed grains of {} bytes are too large", header_.grain * kSector));
  }
  if (header_.directory_offset == 0 || header_.directory_offset > file_sectors) {
    return invalid(
        fmt::format("vmdk grain directory at offset {:#x} is beyond the end of the file ({} bytes)",
                    header_.directory_offset * kSector, file_.size()));
  }
  return {};
}

Task<Result<std::unique_ptr<VmdkSparseExtent>>> VmdkSparseExtent::open(BlockDevice& file, Header header) {
  std::unique_ptr<VmdkSparseExtent> extent(new VmdkSparseExtent(file, header));
  if (header.directory_offset == kDirectoryAtEnd) {
    auto read = co_await extent->read_footer();
    if (!read) {
      co_return std::unexpected(read.error());
    }
  }
  extent->compressed_ =
      (extent->header_.flags & kCompressedFlag) != 0 || extent->header_.compression == kDeflate;
  if (auto judged = extent->judge(); !judged) {
    co_return std::unexpected(judged.error());
  }
  co_return extent;
}

Task<Result<std::uint64_t>> VmdkSparseExtent::grain_entry(std::uint64_t grain) {
  const auto table = grain / header_.entries_per_table;
  const auto at = header_.directory_offset * kSector / 4 + table;
  auto table_sector = co_await words_.get(at);
  if (!table_sector) {
    co_return std::unexpected(table_sector.error());
  }
  if (*table_sector == 0) {
    co_return std::uint64_t{0};
  }
  auto entry = co_await words_.get(*table_sector * kSector / 4 + grain % header_.entries_per_table);
  co_return entry;
}

Task<Result<Place>> VmdkSparseExtent::locate(std::uint64_t offset, std::uint64_t bytes) {
  Place place{};
  const auto grain_bytes = header_.grain * kSector;
  bytes = std::min(bytes, kMaxEntriesAnAnswer * header_.grain * kSector);
  std::uint64_t done = 0;
  while (done < bytes) {
    const auto in_grain = (offset + done) % grain_bytes;
    auto entry = co_await grain_entry((offset + done) / grain_bytes);
    if (!entry) {
      co_return std::unexpected(entry.error());
    }
    auto kind = compressed_ ? PlaceKind::kCompressed : PlaceKind::kData;
    if (*entry == 0) {
      kind = PlaceKind::kHole;
    } else if (*entry == 1 && (header_.flags & kZeroGrainFlag) != 0) {
      kind = PlaceKind::kZero;
    }
    const bool here = kind == PlaceKind::kData || kind == PlaceKind::kCompressed;
    const auto host = here ? *entry * kSector + (compressed_ ? 0 : in_grain) : 0;
    if (done == 0) {
      place = {.kind = kind, .bytes = 0, .file = here ? &file_ : nullptr, .host_offset = host};
    } else if (kind != place.kind || kind == PlaceKind::kCompressed ||
               (kind == PlaceKind::kData && host != place.host_offset + done)) {
      break;
    }
    done += std::min(bytes - done, grain_bytes - in_grain);
  }
  place.bytes = done;
  co_return place;
}

Task<Result<std::shared_ptr<const VmdkSparseExtent::Grain>>> VmdkSparseExtent::inflate(
    std::uint64_t offset, std::uint64_t host_offset) {
  const auto grain_bytes = static_cast<std::size_t>(header_.grain * kSector);
  const auto size = file_.size();
  if (host_offset >= size) {
    co_return corrupt(fmt::format("vmdk grain at offset {:#x} is beyond the end of the file ({} bytes)",
                                  host_offset, size));
  }
  const bool markers = (header_.flags & kMarkersFlag) != 0;
  // The sector number and the length stand before the data.
  std::array<std::uint8_t, 12> marker{};
  std::size_t bytes = std::min<std::uint64_t>(2 * grain_bytes, size - host_offset);
  std::uint64_t data_at = host_offset;
  if (markers) {
    auto read =
        co_await read_structure(file_, "vmdk grain marker", host_offset, marker.data(), marker.size());
    if (!read) {
      co_return std::unexpected(read.error());
    }
    bytes = load_le<std::uint32_t>(&marker[8]);
    data_at += marker.size();
    if (bytes == 0 || bytes > 2 * grain_bytes || bytes > size - data_at) {
      co_return corrupt(
          fmt::format("vmdk grain marker at offset {:#x}: {} bytes of data are none, too many or beyond "
                      "the end of the file",
                      host_offset, bytes));
    }
    if (load_le<std::uint64_t>(marker.data()) != offset / kSector / header_.grain * header_.grain) {
      co_return corrupt(
          fmt::format("vmdk grain marker at offset {:#x}: it is of sector {}, not of that at disk offset "
                      "{:#x}",
                      host_offset, load_le<std::uint64_t>(marker.data()), offset));
    }
  }
  std::vector<std::uint8_t> packed(bytes);
  auto read = co_await read_structure(file_, "vmdk grain", data_at, packed.data(), packed.size());
  if (!read) {
    co_return std::unexpected(read.error());
  }
  auto grain = std::make_shared<Grain>();
  grain->host_offset = host_offset;
  grain->content.resize(grain_bytes);
  const auto inflated = inflate_grain(packed, grain->content);
  if (!inflated) {
    co_return corrupt(fmt::format("vmdk grain at offset {:#x}: its compressed data is damaged", host_offset));
  }
  grain->content.resize(*inflated);
  last_ = grain;
  co_return std::shared_ptr<const Grain>(grain);
}

Task<Result<void>> VmdkSparseExtent::read_compressed(std::uint64_t offset, std::uint64_t host_offset,
                                                     IoVec to) {
  auto grain = last_;
  if (!grain || grain->host_offset != host_offset) {
    auto inflated = co_await inflate(offset, host_offset);
    if (!inflated) {
      co_return std::unexpected(inflated.error());
    }
    grain = *inflated;
  }
  const auto in_grain = offset % (header_.grain * kSector);
  const auto bytes = iovec_bytes(to);
  if (in_grain + bytes > grain->content.size()) {
    co_return corrupt(fmt::format("vmdk grain at offset {:#x}: it has only {} of {} bytes", host_offset,
                                  grain->content.size(), header_.grain * kSector));
  }
  copy_to_iovec(to, 0, std::span(grain->content).subspan(in_grain, bytes));
  co_return Result<void>{};
}

}  // namespace whistler::formats
