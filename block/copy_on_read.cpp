#include "block/copy_on_read.hpp"

#include <algorithm>

#include "base/bytes.hpp"
#include "block/aligned_buffer.hpp"
#include "block/iovec.hpp"
#include "block/request.hpp"

namespace whistler {

namespace {
constexpr std::uint64_t kMostAtOnce = 2 * 1024 * 1024;
}

Task<Result<void>> CopyOnRead::readv(std::uint64_t offset, IoVec to) {
  const auto bytes = iovec_bytes(to);
  auto done = check_request(*this, offset, bytes, false);
  if (!done || bytes == 0) {
    co_return done;
  }
  if (read_only()) {
    done = co_await below().readv(offset, to);
    co_return done;
  }
  const auto begin = align_down(offset, cluster_);
  const auto end = std::min(align_up(offset + bytes, cluster_), size());
  RangeLock::Hold hold(copies_, begin, end, RangeLock::Mode::kExclusive);
  co_await hold;
  for (auto at = begin; at < end;) {
    auto status = co_await below().block_status(at, std::min(end - at, kMostAtOnce));
    if (!status) {
      co_return std::unexpected(status.error());
    }
    const auto first = std::max(at, offset);
    const auto last = std::max(first, std::min(at + status->bytes, offset + bytes));
    const IoSlice part(to, first - offset, last - first);
    if (!status->data) {
      done = co_await copy_piece(at, status->bytes, first, part);
    } else if (first != last) {
      done = co_await below().readv(first, part);
    }
    if (!done) {
      co_return done;
    }
    at += status->bytes;
  }
  co_return done;
}

Task<Result<void>> CopyOnRead::copy_piece(std::uint64_t offset, std::uint64_t bytes, std::uint64_t wanted,
                                          IoVec to) {
  AlignedBuffer data(static_cast<std::size_t>(bytes));
  const iovec piece = data.vec();
  auto done = co_await below().readv(offset, {&piece, 1});
  if (!done) {
    co_return done;
  }
  below().debug_event(DebugEvent::kCorWrite);
  if (is_zero(data.bytes())) {
    done = co_await below().write_zeroes(offset, bytes);
  } else {
    done = co_await below().writev(offset, {&piece, 1});
  }
  if (done && !to.empty()) {
    copy_to_iovec(to, 0,
                  data.bytes().subspan(static_cast<std::size_t>(wanted - offset),
                                       static_cast<std::size_t>(iovec_bytes(to))));
  }
  co_return done;
}

Task<Result<void>> CopyOnRead::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  RangeLock::Hold hold(copies_, offset, offset + iovec_bytes(from), RangeLock::Mode::kShared);
  co_await hold;
  auto done = co_await below().writev(offset, from, flags);
  co_return done;
}

Task<Result<void>> CopyOnRead::discard(std::uint64_t offset, std::uint64_t bytes) {
  RangeLock::Hold hold(copies_, offset, offset + bytes, RangeLock::Mode::kShared);
  co_await hold;
  auto done = co_await below().discard(offset, bytes);
  co_return done;
}

Task<Result<void>> CopyOnRead::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  RangeLock::Hold hold(copies_, offset, offset + bytes, RangeLock::Mode::kShared);
  co_await hold;
  auto done = co_await below().write_zeroes(offset, bytes, flags);
  co_return done;
}

}  // namespace whistler
