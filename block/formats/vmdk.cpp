#include "block/formats/vmdk.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

namespace whistler::formats {

namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::array<std::string_view, 5> kDescribedKinds = {"monolithicFlat", "vmfs", "vmfsSparse",
                                                             "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"};
constexpr std::uint64_t kMaxBytes = (std::uint64_t{1} << 62);

}  // namespace

bool is_vmdk(std::span<const std::uint8_t> start) {
  const std::string_view text(reinterpret_cast<const char*>(start.data()), start.size());
  return text.starts_with("KDMV") || text.starts_with("COWD") || is_vmdk_descriptor(text);
}

Task<Result<std::unique_ptr<VmdkImage>>> VmdkImage::open(std::unique_ptr<BlockDevice> file,
                                                         SiblingOpener& siblings) {
  std::unique_ptr<VmdkImage> image(new VmdkImage(std::move(file)));
  auto opened = co_await image->open_all(siblings);
  if (!opened) {
    co_return std::unexpected(opened.error());
  }
  co_return image;
}

Task<Result<std::string>> VmdkImage::read_text(std::uint64_t offset, std::uint64_t bytes) {
  if (bytes > kVmdkMaxDescriptorBytes) {
    co_return corrupt(fmt::format("vmdk descriptor at offset {:#x}: {} bytes are more than the allowed {}",
                                  offset, bytes, kVmdkMaxDescriptorBytes));
  }
  std::string text(bytes, '\0');
  auto read = co_await read_structure(*file_, "vmdk descriptor", offset, text.data(), text.size());
  if (!read) {
    co_return std::unexpected(read.error());
  }
  co_return text;
}

Task<Result<void>> VmdkImage::open_all(SiblingOpener& siblings) {
  if (file_->size() == 0) {
    co_return error(ErrorCode::kInvalid, "File is too small, not a valid image");
  }
  auto header = co_await VmdkSparseExtent::read_header(*file_);
  if (!header) {
    co_return std::unexpected(header.error());
  }
  std::uint64_t text_offset = 0;
  std::uint64_t text_bytes = file_->size();
  const bool single = header->has_value();
  if (single) {
    const auto& found = **header;
    if (found.descriptor_offset > file_->size() / kSector ||
        found.descriptor_size > kVmdkMaxDescriptorBytes) {
      co_return corrupt(
          fmt::format("vmdk descriptor at sector {} with {} sectors is too large or beyond the end of the "
                      "file ({} bytes)",
                      found.descriptor_offset, found.descriptor_size, file_->size()));
    }
    text_offset = found.descriptor_offset * kSector;
    text_bytes = text_offset == 0 ? 0 : found.descriptor_size * kSector;
    text_bytes = std::min(text_bytes, file_->size() - text_offset);
  } else if (text_bytes > kVmdkMaxDescriptorBytes) {
    co_return error(ErrorCode::kInvalid, "invalid VMDK image descriptor");
  }
  auto text = co_await read_text(text_offset, text_bytes);
  if (!text) {
    co_return std::unexpected(text.error());
  }
  auto parsed = parse_vmdk_descriptor(*text);
  if (!parsed) {
    co_return std::unexpected(parsed.error().within(name()));
  }
  descriptor_ = std::move(*parsed);
  if (!single || (**header).capacity == 0) {
    auto opened = co_await open_described(siblings);
    co_return opened;
  }
  if (descriptor_.create_type.empty()) {
    descriptor_.create_type = "monolithicSparse";
  }
  auto extent = co_await VmdkSparseExtent::open(*file_, **header);
  if (!extent) {
    co_return std::unexpected(extent.error());
  }
  size_ = (*extent)->bytes();
  Extent only{.bytes = size_};
  only.sparse = std::move(*extent);
  extents_.push_back(std::move(only));
  co_return Result<void>{};
}

Task<Result<void>> VmdkImage::open_described(SiblingOpener& siblings) {
  if (descriptor_.create_type.empty()) {
    co_return error(ErrorCode::kInvalid, "invalid VMDK image descriptor");
  }
  if (std::find(kDescribedKinds.begin(), kDescribedKinds.end(), descriptor_.create_type) ==
      kDescribedKinds.end()) {
    co_return error(ErrorCode::kUnsupported,
                    fmt::format("Unsupported image type '{}'", descriptor_.create_type));
  }
  for (const auto& line : descriptor_.extents) {
    auto extent = co_await open_extent(siblings, line);
    if (!extent) {
      co_return std::unexpected(extent.error());
    }
    extent->start = size_;
    size_ += extent->bytes;
    if (size_ > kMaxBytes) {
      co_return corrupt("vmdk descriptor: the extents together are too large");
    }
    extents_.push_back(std::move(*extent));
  }
  co_return Result<void>{};
}

Task<Result<VmdkImage::Extent>> VmdkImage::open_extent(SiblingOpener& siblings, const VmdkExtentLine& line) {
  Extent extent{.bytes = line.sectors * kSector, .type_name = line.type_name};
  if (line.type == VmdkExtentType::kZero) {
    extent.zero = true;
    co_return extent;
  }
  auto file = co_await siblings.open_sibling(line.file);
  if (!file) {
    co_return std::unexpected(file.error());
  }
  extent.own = std::move(*file);
  extent.flat_offset = line.offset_sectors * kSector;
  if (line.type == VmdkExtentType::kFlat) {
    co_return extent;
  }
  auto header = co_await VmdkSparseExtent::read_header(*extent.own);
  if (!header) {
    co_return std::unexpected(header.error());
  }
  if (!*header) {
    co_return fail(ErrorCode::kCorrupt, fmt::format("{}: vmdk header: not a sparse extent, as {} says",
                                                    extent.own->name(), name()));
  }
  auto sparse = co_await VmdkSparseExtent::open(*extent.own, **header);
  if (!sparse) {
    co_return std::unexpected(sparse.error());
  }
  if ((*sparse)->bytes() < extent.bytes) {
    co_return fail(ErrorCode::kCorrupt,
                   fmt::format("{}: vmdk header: the extent has {} bytes, but {} says {}", extent.own->name(),
                               (*sparse)->bytes(), name(), extent.bytes));
  }
  extent.sparse = std::move(*sparse);
  co_return extent;
}

std::uint64_t VmdkImage::cluster_size() const {
  const auto sparse = std::find_if(extents_.begin(), extents_.end(),
                                   [](const Extent& extent) { return extent.sparse != nullptr; });
  return sparse == extents_.end() ? 0 : sparse->sparse->grain_bytes();
}

const VmdkImage::Extent& VmdkImage::extent_at(std::uint64_t offset) const {
  const auto after =
      std::upper_bound(extents_.begin(), extents_.end(), offset,
                       [](std::uint64_t at, const Extent& extent) { return at < extent.start; });
  return *(after - 1);
}

Task<Result<Place>> VmdkImage::locate(std::uint64_t offset, std::uint64_t bytes) {
  const auto& extent = extent_at(offset);
  const auto in_extent = offset - extent.start;
  bytes = std::min(bytes, extent.bytes - in_extent);
  if (extent.sparse) {
    auto place = co_await extent.sparse->locate(in_extent, bytes);
    co_return place;
  }
  if (extent.zero) {
    co_return Place{.kind = PlaceKind::kZero, .bytes = bytes};
  }
  co_return Place{.kind = PlaceKind::kData,
                  .bytes = bytes,
                  .file = extent.own.get(),
                  .host_offset = extent.flat_offset + in_extent,
                  .plain = true};
}

Task<Result<void>> VmdkImage::read_compressed(std::uint64_t offset, Place place, IoVec to) {
  const auto& extent = extent_at(offset);
  auto read = co_await extent.sparse->read_compressed(offset - extent.start, place.host_offset, to);
  co_return read;
}

Task<Result<void>> VmdkImage::close_files() {
  Result<void> result;
  for (auto& extent : extents_) {
    if (extent.own) {
      auto closed = co_await extent.own->close();
      if (result && !closed) {
        result = closed;
      }
    }
  }
  auto closed = co_await file_->close();
  co_return result ? closed : result;
}

}  // namespace whistler::formats
