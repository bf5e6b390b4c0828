#include "block/faulty.hpp"

#include <fmt/format.h>

#include "base/bytes.hpp"
#include "block/iovec.hpp"

namespace whistler {

namespace {
constexpr std::uint64_t kSector = 512;
}

std::unexpected<Error> FaultyDevice::failed(const Fault& fault, std::string_view verb,
                                            std::uint64_t offset) const {
  return fail_errno(fault.errnum,
                    fmt::format("{}: injected fault: cannot {} at offset {}", name(), verb, offset));
}

Task<Result<void>> FaultyDevice::readv(std::uint64_t offset, IoVec to) {
  if (const auto fault = decide_(FaultOperation::kRead, offset, iovec_bytes(to)); fault.errnum != 0) {
    co_return failed(fault, "read", offset);
  }
  auto result = co_await below_->readv(offset, to);
  co_return result;
}

Task<Result<void>> FaultyDevice::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto bytes = iovec_bytes(from);
  const auto fault = decide_(FaultOperation::kWrite, offset, bytes);
  if (fault.errnum == 0) {
    auto result = co_await below_->writev(offset, from, flags);
    co_return result;
  }
  if (fault.half_done) {
    const IoSlice half(from, 0, align_down(bytes / 2, kSector));
    auto result = co_await below_->writev(offset, half, flags);
    static_cast<void>(result);
  }
  co_return failed(fault, "write", offset);
}

Task<Result<void>> FaultyDevice::flush() {
  if (const auto fault = decide_(FaultOperation::kFlush, 0, 0); fault.errnum != 0) {
    co_return failed(fault, "flush", 0);
  }
  auto result = co_await below_->flush();
  co_return result;
}

Task<Result<void>> FaultyDevice::discard(std::uint64_t offset, std::uint64_t bytes) {
  if (const auto fault = decide_(FaultOperation::kDiscard, offset, bytes); fault.errnum != 0) {
    co_return failed(fault, "discard", offset);
  }
  auto result = co_await below_->discard(offset, bytes);
  co_return result;
}

Task<Result<void>> FaultyDevice::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  if (const auto fault = decide_(FaultOperation::kWriteZeroes, offset, bytes); fault.errnum != 0) {
    co_return failed(fault, "write zeroes", offset);
  }
  auto result = co_await below_->write_zeroes(offset, bytes, flags);
  co_return result;
}

Task<Result<void>> FaultyDevice::resize(std::uint64_t bytes) {
  if (const auto fault = decide_(FaultOperation::kResize, bytes, 0); fault.errnum != 0) {
    co_return failed(fault, "resize", bytes);
  }
  auto result = co_await below_->resize(bytes);
  co_return result;
}

}  // namespace whistler
