#include "block/copy_on_read.hpp"

#include <algorithm>
#include <vector>

#include "block/iovec.hpp"
#include "block/request.hpp"

namespace whistler {

namespace {
constexpr std::uint64_t kMostAtOnce = 2 * 1024 * 1024;
}

Task<Result<void>> CopyOnRead::readv(std::uint64_t offset, IoVec to) {
  const auto bytes = iovec_bytes(to);
  auto done = check_request(*this, offset, bytes, false);
  if (!done) {
    co_return done;
  }
  const auto begin = offset / cluster_ * cluster_;
  const auto end = std::min((offset + bytes + cluster_ - 1) / cluster_ * cluster_, size());
  RangeLock::Hold hold(copies_, begin, std::max(begin, end), RangeLock::Mode::kExclusive);
  co_await hold;
  if (!read_only() && bytes != 0) {
    done = co_await copy_up(begin, end);
  }
  if (done) {
    done = co_await image_->readv(offset, to);
  }
  co_return done;
}

Task<Result<void>> CopyOnRead::copy_up(std::uint64_t begin, std::uint64_t end) {
  for (auto at = begin; at < end;) {
    auto status = co_await image_->block_status(at, std::min(end - at, kMostAtOnce));
    if (!status) {
      co_return std::unexpected(status.error());
    }
    if (!status->data) {
      auto copied = co_await copy_piece(at, status->bytes);
      if (!copied) {
        co_return copied;
      }
    }
    at += status->bytes;
  }
  co_return Result<void>{};
}

Task<Result<void>> CopyOnRead::copy_piece(std::uint64_t offset, std::uint64_t bytes) {
  std::vector<std::uint8_t> data(static_cast<std::size_t>(bytes));
  const iovec piece{data.data(), data.size()};
  auto done = co_await image_->readv(offset, {&piece, 1});
  if (!done) {
    co_return done;
  }
  if (is_zero(data)) {
    done = co_await image_->write_zeroes(offset, bytes);
  } else {
    done = co_await image_->writev(offset, {&piece, 1});
  }
  co_return done;
}

Task<Result<void>> CopyOnRead::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  RangeLock::Hold hold(copies_, offset, offset + iovec_bytes(from), RangeLock::Mode::kShared);
  co_await hold;
  auto done = co_await image_->writev(offset, from, flags);
  co_return done;
}

Task<Result<void>> CopyOnRead::discard(std::uint64_t offset, std::uint64_t bytes) {
  RangeLock::Hold hold(copies_, offset, offset + bytes, RangeLock::Mode::kShared);
  co_await hold;
  auto done = co_await image_->discard(offset, bytes);
  co_return done;
}

Task<Result<void>> CopyOnRead::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  RangeLock::Hold hold(copies_, offset, offset + bytes, RangeLock::Mode::kShared);
  co_await hold;
  auto done = co_await image_->write_zeroes(offset, bytes, flags);
  co_return done;
}

}  // namespace whistler
