#include "block/crypto/luks_device.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.hpp"
#include "block/aligned_buffer.hpp"
#include "block/iovec.hpp"
#include "block/request.hpp"

namespace whistler::crypto {

namespace {

/// A longer write is done in pieces of this, to bound the memory for what is encrypted.
constexpr std::uint64_t kPieceBytes = 1024 * 1024;

bool whole_sectors(std::uint64_t offset, std::uint64_t bytes) { return (offset | bytes) % kSectorBytes == 0; }

}  // namespace

LuksDevice::LuksDevice(std::unique_ptr<BlockDevice> file, Luks luks)
    : file_(std::move(file)), luks_(std::move(luks)) {
  const auto end = align_up(file_->size(), kSectorBytes);
  size_ = end > payload() ? end - payload() : 0;
}

Task<Result<std::unique_ptr<LuksDevice>>> LuksDevice::open(std::unique_ptr<BlockDevice> file) {
  auto luks = co_await Luks::load(*file, 0);
  if (!luks) {
    co_return std::unexpected(luks.error());
  }
  co_return std::unique_ptr<LuksDevice>(new LuksDevice(std::move(file), std::move(*luks)));
}

Task<Result<void>> LuksDevice::create(BlockDevice& file, LuksOptions options, Secret password,
                                      std::uint64_t bytes) {
  auto made = Luks::make(options, password);
  if (!made) {
    co_return std::unexpected(made.error());
  }
  const auto size = align_up(bytes, kSectorBytes);
  if (size > ~std::uint64_t{0} / 2 - made->header.payload_offset) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("{}: a disk of {} bytes is too large", file.name(), bytes));
  }
  auto done = co_await file.resize(made->header.payload_offset + size);
  if (done) {
    const iovec vec{made->bytes.data(), made->bytes.size()};
    done = co_await file.writev(0, {&vec, 1});
  }
  if (done) {
    done = co_await file.flush();
  }
  co_return done;
}

Result<void> LuksDevice::check(std::uint64_t offset, std::uint64_t bytes, bool write) const {
  if (!luks_.unlocked()) {
    return fail(ErrorCode::kPermission,
                fmt::format("{}: is encrypted, and was opened without a password", name()));
  }
  return check_request(*this, offset, bytes, write);
}

Task<Result<void>> LuksDevice::read_sectors(std::uint64_t offset, IoVec to) {
  auto read = co_await file_->readv(payload() + offset, to);
  if (read) {
    luks_.cipher().decrypt(offset / kSectorBytes, to);
  }
  co_return read;
}

Task<Result<void>> LuksDevice::write_sectors(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto total = iovec_bytes(from);
  AlignedBuffer buffer(static_cast<std::size_t>(std::min(total, kPieceBytes)));
  for (std::uint64_t done = 0; done < total;) {
    const auto bytes = std::min(total - done, kPieceBytes);
    const IoSlice piece(from, done, bytes);
    luks_.cipher().encrypt((offset + done) / kSectorBytes, piece.vec(), buffer.data());
    const iovec vec{buffer.data(), static_cast<std::size_t>(bytes)};
    auto written = co_await file_->writev(payload() + offset + done, {&vec, 1}, flags);
    if (!written) {
      co_return written;
    }
    done += bytes;
  }
  co_return Result<void>{};
}

Task<Result<void>> LuksDevice::readv(std::uint64_t offset, IoVec to) {
  const auto bytes = iovec_bytes(to);
  if (auto ok = check(offset, bytes, false); !ok) {
    co_return ok;
  }
  Result<void> read;
  if (whole_sectors(offset, bytes)) {
    read = co_await read_sectors(offset, to);
  } else {
    const auto begin = align_down(offset, kSectorBytes);
    AlignedBuffer buffer(static_cast<std::size_t>(align_up(offset + bytes, kSectorBytes) - begin));
    const auto vec = buffer.vec();
    read = co_await read_sectors(begin, {&vec, 1});
    if (read) {
      copy_to_iovec(
          to, 0,
          buffer.bytes().subspan(static_cast<std::size_t>(offset - begin), static_cast<std::size_t>(bytes)));
    }
  }
  co_return read;
}

Task<Result<void>> LuksDevice::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto bytes = iovec_bytes(from);
  if (auto ok = check(offset, bytes, true); !ok) {
    co_return ok;
  }
  const bool whole = whole_sectors(offset, bytes);
  RangeLock::Hold hold(requests_, align_down(offset, kSectorBytes), align_up(offset + bytes, kSectorBytes),
                       whole ? RangeLock::Mode::kShared : RangeLock::Mode::kExclusive);
  co_await hold;
  Result<void> written;
  if (whole) {
    written = co_await write_sectors(offset, from, flags);
  } else {
    written = co_await write_unaligned(offset, from, flags);
  }
  co_return written;
}

Task<Result<void>> LuksDevice::write_unaligned(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto end = offset + iovec_bytes(from);
  std::array<std::uint8_t, kSectorBytes> first{};
  std::array<std::uint8_t, kSectorBytes> last{};
  const auto head = static_cast<std::size_t>(offset % kSectorBytes);
  const auto tail = static_cast<std::size_t>(align_up(end, kSectorBytes) - end);
  const iovec first_vec{first.data(), first.size()};
  const iovec last_vec{last.data(), last.size()};
  Result<void> done;
  if (head != 0) {
    done = co_await read_sectors(offset - head, {&first_vec, 1});
  }
  if (done && tail != 0) {
    done = co_await read_sectors(align_down(end, kSectorBytes), {&last_vec, 1});
  }
  if (done) {
    IoSlice all;
    all.append(first.data(), head);
    all.append(from, 0, end - offset);
    all.append(last.data() + last.size() - tail, tail);
    done = co_await write_sectors(offset - head, all, flags);
  }
  co_return done;
}

Task<Result<void>> LuksDevice::discard(std::uint64_t offset, std::uint64_t bytes) {
  co_return check(offset, bytes, true);
}

Task<Result<void>> LuksDevice::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  if (auto ok = check(offset, bytes, true); !ok) {
    co_return ok;
  }
  std::vector<std::uint8_t> zeroes(static_cast<std::size_t>(std::min(bytes, kPieceBytes)));
  while (bytes != 0) {
    const iovec vec{zeroes.data(), static_cast<std::size_t>(std::min(bytes, kPieceBytes))};
    auto written = co_await writev(offset, {&vec, 1}, {.fua = flags.fua});
    if (!written) {
      co_return written;
    }
    offset += vec.iov_len;
    bytes -= vec.iov_len;
  }
  co_return Result<void>{};
}

Task<Result<BlockStatus>> LuksDevice::block_status(std::uint64_t offset, std::uint64_t bytes) {
  if (auto ok = check_request(*this, offset, bytes, false); !ok) {
    co_return std::unexpected(ok.error());
  }
  co_return BlockStatus{.bytes = bytes, .data = true, .zero = false};
}

Task<Result<void>> LuksDevice::resize(std::uint64_t bytes) {
  if (auto ok = check(0, 0, true); !ok) {
    co_return ok;
  }
  const auto size = align_up(bytes, kSectorBytes);
  if (bytes > ~std::uint64_t{0} / 2 - payload()) {
    co_return fail(ErrorCode::kInvalid, fmt::format("{}: a disk of {} bytes is too large", name(), bytes));
  }
  auto done = co_await file_->resize(payload() + size);
  if (done) {
    size_ = size;
  }
  co_return done;
}

}  // namespace whistler::crypto
