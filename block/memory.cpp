#include "block/memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace whistler {

Result<void> MemoryBlockDevice::check(std::uint64_t offset, std::uint64_t bytes, bool write) const {
  if (write && read_only_) {
    return fail(ErrorCode::kPermission, "memory: the device is read-only");
  }
  if (offset > bytes_.size() || bytes > bytes_.size() - offset) {
    return fail(ErrorCode::kInvalid, fmt::format("memory: {} bytes at {} are beyond the end ({} bytes)",
                                                 bytes, offset, bytes_.size()));
  }
  return {};
}

Task<Result<void>> MemoryBlockDevice::readv(std::uint64_t offset, IoVec to) {
  if (auto ok = check(offset, iovec_bytes(to), false); !ok) {
    co_return ok;
  }
  for (const auto& piece : to) {
    if (piece.iov_len != 0) {  // there may be no memory at all
      std::memcpy(piece.iov_base, bytes_.data() + offset, piece.iov_len);
    }
    offset += piece.iov_len;
  }
  co_return Result<void>{};
}

Task<Result<void>> MemoryBlockDevice::writev(std::uint64_t offset, IoVec from, WriteFlags) {
  if (auto ok = check(offset, iovec_bytes(from), true); !ok) {
    co_return ok;
  }
  for (const auto& piece : from) {
    std::memcpy(bytes_.data() + offset, piece.iov_base, piece.iov_len);
    offset += piece.iov_len;
  }
  co_return Result<void>{};
}

Task<Result<void>> MemoryBlockDevice::flush() {
  ++flushes_;
  co_return Result<void>{};
}

Task<Result<void>> MemoryBlockDevice::discard(std::uint64_t offset, std::uint64_t bytes) {
  return write_zeroes(offset, bytes);
}

Task<Result<void>> MemoryBlockDevice::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags) {
  if (auto ok = check(offset, bytes, true); !ok) {
    co_return ok;
  }
  std::fill_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), bytes, std::uint8_t{0});
  co_return Result<void>{};
}

Task<Result<BlockStatus>> MemoryBlockDevice::block_status(std::uint64_t offset, std::uint64_t bytes) {
  if (auto ok = check(offset, bytes, false); !ok) {
    co_return std::unexpected(ok.error());
  }
  co_return BlockStatus{bytes, true, false};
}

Task<Result<void>> MemoryBlockDevice::resize(std::uint64_t bytes) {
  bytes_.resize(bytes);
  co_return Result<void>{};
}

Task<Result<void>> MemoryBlockDevice::close() { co_return Result<void>{}; }

}  // namespace whistler
