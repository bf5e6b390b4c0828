#include "block/formats/image.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "block/iovec.hpp"
#include "block/request.hpp"

namespace whistler::formats {

namespace {

/// What is written where zeroes have to be data, at most this many at once.
constexpr std::uint64_t kMaxZeroes = 1 << 20;

}  // namespace

std::unexpected<Error> Image::error(ErrorCode code, std::string_view what) const {
  return fail(code, fmt::format("{}: {}", name(), what));
}

Task<Result<void>> Image::read_place(std::uint64_t offset, Place place, IoVec to) {
  const auto bytes = iovec_bytes(to);
  if (place.kind == PlaceKind::kCompressed) {
    auto result = co_await read_compressed(offset, place, to);
    co_return result;
  }
  BlockDevice* source = nullptr;
  std::uint64_t at = offset;
  if (place.kind == PlaceKind::kData) {
    source = place.file;
    at = place.host_offset;
    if (at >= source->size()) {
      co_return fail(ErrorCode::kCorrupt,
                     fmt::format("{}: {} block at offset {:#x} for disk offset {:#x} is beyond the end of "
                                 "the file ({} bytes)",
                                 source->name(), format(), at, offset, source->size()));
    }
  } else if (place.kind == PlaceKind::kHole) {
    source = backing_.get();
  }
  std::uint64_t there = 0;
  if (source != nullptr && at < source->size()) {
    there = std::min(bytes, source->size() - at);
  }
  if (there < bytes) {
    zero_iovec(to, there, bytes - there);
  }
  if (there == 0) {
    co_return Result<void>{};
  }
  const IoSlice piece(to, 0, there);
  auto result = co_await source->readv(at, piece);
  co_return result;
}

Task<Result<void>> Image::readv(std::uint64_t offset, IoVec to) {
  const auto total = iovec_bytes(to);
  if (auto ok = check_request(*this, offset, total, false); !ok) {
    co_return ok;
  }
  for (std::uint64_t done = 0; done < total;) {
    auto place = co_await locate(offset + done, total - done);
    if (!place) {
      co_return std::unexpected(place.error());
    }
    const IoSlice piece(to, done, place->bytes);
    auto read = co_await read_place(offset + done, *place, piece);
    if (!read) {
      co_return read;
    }
    done += place->bytes;
  }
  co_return Result<void>{};
}

Task<Result<std::uint64_t>> Image::write_piece(std::uint64_t offset, IoVec from, std::uint64_t done) {
  const auto left = iovec_bytes(from) - done;
  auto place = co_await locate(offset + done, left);
  if (!place) {
    co_return std::unexpected(place.error());
  }
  if (place->kind != PlaceKind::kData) {
    RangeLock::Hold hold(allocation_, 0, 1, RangeLock::Mode::kExclusive);
    co_await hold;
    // Somebody may have given the block its place meanwhile.
    place = co_await locate(offset + done, left);
    if (!place) {
      co_return std::unexpected(place.error());
    }
    if (place->kind != PlaceKind::kData) {
      const auto unit = std::max<std::uint64_t>(cluster_size(), 1);
      const auto in_block = std::min(place->bytes, unit - (offset + done) % unit);
      const IoSlice piece(from, done, in_block);
      auto written = co_await allocate(offset + done, piece);
      if (!written) {
        co_return std::unexpected(written.error());
      }
      co_return in_block;
    }
  }
  auto prepared = co_await before_write(offset + done);
  if (!prepared) {
    co_return std::unexpected(prepared.error());
  }
  const IoSlice piece(from, done, place->bytes);
  auto written = co_await place->file->writev(place->host_offset, piece);
  if (!written) {
    co_return std::unexpected(written.error());
  }
  co_return place->bytes;
}

Task<Result<void>> Image::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto total = iovec_bytes(from);
  if (auto ok = check_request(*this, offset, total, true); !ok) {
    co_return ok;
  }
  for (std::uint64_t done = 0; done < total;) {
    auto written = co_await write_piece(offset, from, done);
    if (!written) {
      co_return std::unexpected(written.error());
    }
    done += *written;
  }
  if (flags.fua) {
    auto flushed = co_await flush();
    co_return flushed;
  }
  co_return Result<void>{};
}

Task<Result<void>> Image::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  if (auto ok = check_request(*this, offset, bytes, true); !ok) {
    co_return ok;
  }
  std::vector<std::uint8_t> zeroes;
  for (std::uint64_t done = 0; done < bytes;) {
    auto place = co_await locate(offset + done, bytes - done);
    if (!place) {
      co_return std::unexpected(place.error());
    }
    Result<void> written;
    if (place->kind == PlaceKind::kData && place->host_offset < place->file->size()) {
      const auto inside = std::min(place->bytes, place->file->size() - place->host_offset);
      auto prepared = co_await before_write(offset + done);
      if (!prepared) {
        co_return prepared;
      }
      written = co_await place->file->write_zeroes(place->host_offset, inside,
                                                   {.may_unmap = flags.may_unmap && place->plain});
      place->bytes = inside;
    } else if (place->kind == PlaceKind::kHole && backing_ != nullptr) {
      place->bytes = std::min(place->bytes, kMaxZeroes);
      zeroes.resize(place->bytes);
      const iovec vec{zeroes.data(), zeroes.size()};
      written = co_await writev(offset + done, {&vec, 1});
    }
    if (!written) {
      co_return written;
    }
    done += place->bytes;
  }
  if (flags.fua) {
    auto flushed = co_await flush();
    co_return flushed;
  }
  co_return Result<void>{};
}

Task<Result<void>> Image::discard(std::uint64_t offset, std::uint64_t bytes) {
  co_return check_request(*this, offset, bytes, true);  // none of these formats can take space back
}

Task<Result<BlockStatus>> Image::block_status(std::uint64_t offset, std::uint64_t bytes) {
  if (auto ok = check_request(*this, offset, bytes, false); !ok) {
    co_return std::unexpected(ok.error());
  }
  if (bytes == 0) {
    co_return BlockStatus{};
  }
  auto place = co_await locate(offset, bytes);
  if (!place) {
    co_return std::unexpected(place.error());
  }
  BlockStatus status{
      .bytes = place->bytes,
      .data = place->kind != PlaceKind::kHole,
      .zero = place->kind == PlaceKind::kZero || (place->kind == PlaceKind::kHole && backing_ == nullptr)};
  if (place->kind == PlaceKind::kData && place->plain && place->host_offset < place->file->size()) {
    const auto inside = std::min(place->bytes, place->file->size() - place->host_offset);
    auto below = co_await place->file->block_status(place->host_offset, inside);
    if (below) {
      status.bytes = below->bytes;
      status.zero = below->zero;
    }
  }
  co_return status;
}

Task<Result<void>> Image::flush() {
  if (read_only()) {
    co_return Result<void>{};
  }
  RangeLock::Hold hold(allocation_, 0, 1, RangeLock::Mode::kExclusive);
  co_await hold;
  auto written = co_await write_header();
  hold.release();
  if (!written) {
    co_return written;
  }
  auto flushed = co_await file_->flush();
  co_return flushed;
}

Task<Result<void>> Image::resize(std::uint64_t) {
  co_return fail(ErrorCode::kUnsupported, "Image format driver does not support resize");
}

Task<Result<void>> Image::close() {
  auto flushed = co_await flush();
  if (backing_) {
    auto closed = co_await backing_->close();
    if (flushed && !closed) {
      flushed = closed;
    }
  }
  auto closed = co_await close_files();
  co_return flushed ? closed : flushed;
}

Task<Result<void>> Image::close_files() {
  auto closed = co_await file_->close();
  co_return closed;
}

Task<Result<void>> Image::allocate(std::uint64_t, IoVec) {
  co_return error(ErrorCode::kUnsupported, fmt::format("{} images can only be read", format()));
}

Task<Result<void>> Image::before_write(std::uint64_t) { co_return Result<void>{}; }

Task<Result<void>> Image::read_compressed(std::uint64_t, Place, IoVec) {
  co_return error(ErrorCode::kUnsupported, fmt::format("{} images have no compressed blocks", format()));
}

Task<Result<void>> Image::write_header() { co_return Result<void>{}; }

Task<Result<void>> read_structure(BlockDevice& file, std::string what, std::uint64_t offset, void* to,
                                  std::size_t bytes) {
  if (offset > file.size() || bytes > file.size() - offset) {
    co_return fail(ErrorCode::kCorrupt,
                   fmt::format("{}: {} ({} bytes at offset {:#x}) is beyond the end of the file ({} bytes)",
                               file.name(), what, bytes, offset, file.size()));
  }
  const iovec vec{to, bytes};
  auto result = co_await file.readv(offset, {&vec, 1});
  co_return result;
}

Task<Result<void>> write_bytes(BlockDevice& file, std::uint64_t offset, const void* from, std::size_t bytes) {
  const iovec vec{const_cast<void*>(from), bytes};
  auto result = co_await file.writev(offset, {&vec, 1});
  co_return result;
}

}  // namespace whistler::formats
