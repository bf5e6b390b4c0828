// Requests under O_DIRECT that are not aligned: through buffers that are.
#include <algorithm>

#include "base/bytes.hpp"
#include "block/aligned_buffer.hpp"
#include "block/file.hpp"
#include "block/iovec.hpp"

namespace whistler {

namespace {

/// A bounce buffer holds at most this much of a request at a time.
constexpr std::uint64_t kBounceBytes = 1024 * 1024;

}  // namespace

Task<Result<void>> FileDevice::read_bounced(std::uint64_t offset, IoVec to) {
  const auto end = offset + iovec_bytes(to);
  const auto capacity = std::min(kBounceBytes, align_up(end, alignment_) - align_down(offset, alignment_));
  AlignedBuffer buffer(static_cast<std::size_t>(capacity), alignment_);
  std::uint64_t at = align_down(offset, alignment_);
  while (at < end) {
    const auto length = std::min(capacity, align_up(end, alignment_) - at);
    const iovec piece{buffer.data(), static_cast<std::size_t>(length)};
    auto result = co_await read_rest(at, {&piece, 1}, 0);
    if (!result) {
      co_return result;
    }
    const auto first = std::max(at, offset);
    const auto last = std::min(at + length, end);
    copy_to_iovec(to, first - offset, {buffer.data() + (first - at), static_cast<std::size_t>(last - first)});
    at += length;
  }
  co_return Result<void>{};
}

Task<Result<void>> FileDevice::write_bounced(std::uint64_t offset, IoVec from, int flags) {
  const auto end = offset + iovec_bytes(from);
  const auto capacity = std::min(kBounceBytes, align_up(end, alignment_) - align_down(offset, alignment_));
  AlignedBuffer buffer(static_cast<std::size_t>(capacity), alignment_);
  std::uint64_t at = align_down(offset, alignment_);
  while (at < end) {
    const auto length = std::min(capacity, align_up(end, alignment_) - at);
    const auto first = std::max(at, offset);
    const auto last = std::min(at + length, end);
    const iovec piece{buffer.data(), static_cast<std::size_t>(length)};
    if (first != at || last != at + length) {  // keep what surrounds the new bytes
      auto read = co_await read_rest(at, {&piece, 1}, 0);
      if (!read) {
        co_return read;
      }
    }
    copy_from_iovec({buffer.data() + (first - at), static_cast<std::size_t>(last - first)}, from,
                    first - offset);
    auto written = co_await write_rest(at, {&piece, 1}, 0, flags);
    if (!written) {
      co_return written;
    }
    at += length;
  }
  // The last block may have made the file longer than the request: an image's length is part of its content.
  const auto wanted = std::max(size_, end);
  if (!block_device_ && at > wanted && at > host_size_) {
    auto trimmed = co_await resize(wanted);
    co_return trimmed;
  }
  co_return Result<void>{};
}

}  // namespace whistler
