#include "block/raw.hpp"

#include <algorithm>

#include "base/bytes.hpp"
#include "block/request.hpp"

namespace whistler {

namespace {
constexpr std::uint64_t kSector = 512;
}

RawDevice::RawDevice(std::unique_ptr<BlockDevice> file)
    : file_(std::move(file)), size_(align_up(file_->size(), kSector)) {}

RawDevice::RawDevice(std::unique_ptr<BlockDevice> file, std::uint64_t offset, std::uint64_t bytes)
    : file_(std::move(file)), offset_(offset), size_(bytes), fixed_size_(true) {}

Task<Result<void>> RawDevice::readv(std::uint64_t offset, IoVec to) {
  if (auto ok = check_request(*this, offset, iovec_bytes(to), false); !ok) {
    co_return ok;
  }
  auto result = co_await file_->readv(offset_ + offset, to);
  co_return result;
}

Task<Result<void>> RawDevice::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  if (auto ok = check_request(*this, offset, iovec_bytes(from), true); !ok) {
    co_return ok;
  }
  auto result = co_await file_->writev(offset_ + offset, from, flags);
  co_return result;
}

Task<Result<void>> RawDevice::discard(std::uint64_t offset, std::uint64_t bytes) {
  if (auto ok = check_request(*this, offset, bytes, true); !ok) {
    co_return ok;
  }
  auto result = co_await file_->discard(offset_ + offset, bytes);
  co_return result;
}

Task<Result<void>> RawDevice::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  if (auto ok = check_request(*this, offset, bytes, true); !ok) {
    co_return ok;
  }
  auto result = co_await file_->write_zeroes(offset_ + offset, bytes, flags);
  co_return result;
}

Task<Result<BlockStatus>> RawDevice::block_status(std::uint64_t offset, std::uint64_t bytes) {
  if (auto ok = check_request(*this, offset, bytes, false); !ok) {
    co_return std::unexpected(ok.error());
  }
  auto status = co_await file_->block_status(offset_ + offset, bytes);
  if (status) {
    status->data = true;  // a raw image has no backing: even a hole is its own content
  }
  co_return status;
}

Task<Result<void>> RawDevice::resize(std::uint64_t bytes) {
  if (fixed_size_) {
    co_return fail(ErrorCode::kUnsupported, "a part of a file cannot be resized",
                   "Cannot resize fixed-size raw disks");
  }
  auto result = co_await file_->resize(bytes);
  if (result) {
    size_ = align_up(bytes, kSector);
  }
  co_return result;
}

}  // namespace whistler
