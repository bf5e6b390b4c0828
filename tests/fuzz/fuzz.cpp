#include "tests/fuzz/fuzz.hpp"

#include <array>
#include <cstring>

#include "block/iovec.hpp"

namespace whistler::fuzz {

Task<Result<void>> File::readv(std::uint64_t offset, IoVec to) {
  const auto bytes = iovec_bytes(to);
  const auto there = offset < content_.size() ? std::min<std::uint64_t>(bytes, content_.size() - offset) : 0;
  if (there > 0) {
    copy_to_iovec(to, 0, std::span(content_).subspan(offset, there));
  }
  zero_iovec(to, there, bytes - there);
  co_return Result<void>{};
}

Task<Result<void>> File::writev(std::uint64_t offset, IoVec from, WriteFlags) {
  const auto bytes = iovec_bytes(from);
  if (read_only_) {
    co_return fail(ErrorCode::kPermission, "input: is open read-only");
  }
  if (offset > kMaxBytes || bytes > kMaxBytes - offset) {
    co_return fail(ErrorCode::kNoSpace, "input: the host is full");
  }
  size_ = std::max(size_, offset + bytes);
  if (content_.size() < offset + bytes) {
    content_.resize(offset + bytes);
  }
  copy_from_iovec(std::span(content_).subspan(offset, bytes), from, 0);
  co_return Result<void>{};
}

Task<Result<void>> File::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags) {
  if (read_only_) {
    co_return fail(ErrorCode::kPermission, "input: is open read-only");
  }
  if (bytes > ~offset) {
    co_return fail(ErrorCode::kInvalid, "input: the range is beyond all files");
  }
  size_ = std::max(size_, offset + bytes);
  const auto end = std::min<std::uint64_t>(content_.size(), offset + bytes);
  if (offset < end) {
    std::fill(content_.begin() + static_cast<std::ptrdiff_t>(offset),
              content_.begin() + static_cast<std::ptrdiff_t>(end), std::uint8_t{0});
  }
  co_return Result<void>{};
}

Task<Result<BlockStatus>> File::block_status(std::uint64_t offset, std::uint64_t bytes) {
  const bool data = offset < content_.size();
  co_return BlockStatus{.bytes = data ? std::min<std::uint64_t>(bytes, content_.size() - offset) : bytes,
                        .data = data,
                        .zero = !data};
}

Task<Result<void>> File::resize(std::uint64_t bytes) {
  if (read_only_) {
    co_return fail(ErrorCode::kPermission, "input: is open read-only");
  }
  size_ = bytes;
  if (content_.size() > bytes) {
    content_.resize(bytes);
  }
  co_return Result<void>{};
}

void use(BlockDevice& device) {
  const auto size = device.size();
  std::vector<std::uint8_t> buffer(std::min<std::uint64_t>(size, 70000));
  const iovec vec{buffer.data(), buffer.size()};
  const std::array<std::uint64_t, 4> places = {0, size / 3, size / 2 + 1, size - buffer.size()};
  for (const auto place : places) {
    const auto at = std::min(place, size - buffer.size());
    static_cast<void>(now(device.readv(at, {&vec, 1})));
    for (std::uint64_t asked = at, count = 0; asked < size && count < 16; ++count) {
      const auto status = now(device.block_status(asked, std::min<std::uint64_t>(size - asked, 1 << 20)));
      if (!status) {
        break;
      }
      if (status->bytes == 0 || status->bytes > size - asked) {
        __builtin_trap();
      }
      asked += status->bytes;
    }
  }
  if (!device.read_only()) {
    for (const auto place : places) {
      const auto at = std::min(place, size - buffer.size());
      if (now(device.writev(at, {&vec, 1}))) {
        static_cast<void>(now(device.write_zeroes(at, std::min<std::uint64_t>(buffer.size(), 5000))));
        static_cast<void>(now(device.discard(at, std::min<std::uint64_t>(buffer.size(), 5000))));
      }
    }
  }
  static_cast<void>(now(device.flush()));
  static_cast<void>(now(device.close()));
}

}  // namespace whistler::fuzz
