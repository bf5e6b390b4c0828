#include "block/drive_image.hpp"

#include <algorithm>
#include <chrono>

namespace whistler {
namespace {

std::int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

}  // namespace

void DriveImage::ended(IoCounts::Kind& kind, std::int64_t begun, std::uint64_t bytes,
                       const Result<void>& done) {
  counts_.last_request = now();
  kind.nanoseconds += static_cast<std::uint64_t>(counts_.last_request - begun);
  ++(done ? kind.requests : kind.failed);
  kind.bytes += done ? bytes : 0;
  if (!done && failed_) {
    failed_(done.error(), &kind != &counts_.reads);
  }
}

Task<void> DriveImage::turn() {
  while (held_) {
    co_await released_.wait();
  }
}

Task<Result<void>> DriveImage::watched(std::uint64_t offset, std::uint64_t bytes, Task<Result<void>> change) {
  auto* watcher = watcher_;  // it stays as long as a request is inside
  co_await watcher->before_change(offset, bytes);
  RangeLock::Hold range(changes_, offset, offset + bytes, RangeLock::Mode::kShared);
  co_await range;
  auto done = co_await std::move(change);
  watcher->after_change(offset, bytes);
  co_return done;
}

Task<Result<void>> DriveImage::readv(std::uint64_t offset, IoVec to) {
  const auto begun = now();
  if (held_) {
    co_await turn();
  }
  const Pass pass(*this);
  auto done = co_await image_->readv(offset, to);
  ended(counts_.reads, begun, iovec_bytes(to), done);
  co_return done;
}

Task<Result<void>> DriveImage::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto begun = now();
  if (held_) {
    co_await turn();
  }
  const Pass pass(*this);
  const auto bytes = iovec_bytes(from);
  Result<void> done;
  if (watcher_ == nullptr) {
    done = co_await image_->writev(offset, from, flags);
  } else {
    done = co_await watched(offset, bytes, image_->writev(offset, from, flags));
  }
  record(offset, bytes);
  counts_.highest_write = std::max(counts_.highest_write, done ? offset + bytes : 0);
  ended(counts_.writes, begun, bytes, done);
  co_return done;
}

Task<Result<void>> DriveImage::flush() {
  const auto begun = now();
  if (held_) {
    co_await turn();
  }
  const Pass pass(*this);
  auto done = co_await image_->flush();
  ended(counts_.flushes, begun, 0, done);
  co_return done;
}

Task<Result<void>> DriveImage::discard(std::uint64_t offset, std::uint64_t bytes) {
  const auto begun = now();
  if (held_) {
    co_await turn();
  }
  const Pass pass(*this);
  Result<void> done;
  if (watcher_ == nullptr) {
    done = co_await image_->discard(offset, bytes);
  } else {
    done = co_await watched(offset, bytes, image_->discard(offset, bytes));
  }
  record(offset, bytes);
  ended(counts_.discards, begun, bytes, done);
  co_return done;
}

Task<Result<void>> DriveImage::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  const auto begun = now();
  if (held_) {
    co_await turn();
  }
  const Pass pass(*this);
  Result<void> done;
  if (watcher_ == nullptr) {
    done = co_await image_->write_zeroes(offset, bytes, flags);
  } else {
    done = co_await watched(offset, bytes, image_->write_zeroes(offset, bytes, flags));
  }
  record(offset, bytes);
  ended(counts_.writes, begun, bytes, done);
  co_return done;
}

Task<Result<void>> DriveImage::resize(std::uint64_t bytes) {
  auto done = co_await image_->resize(bytes);
  if (done && recorder_ != nullptr) {
    recorder_->resized(bytes);
  }
  co_return done;
}

Task<void> DriveImage::hold() {
  // Only one holder at a time: each is to find the image as the last one left it.
  co_await turn();
  held_ = true;
  while (inside_ != 0) {
    co_await emptied_.wait();
  }
}

void DriveImage::release() {
  held_ = false;
  released_.wake_all();
}

}  // namespace whistler
