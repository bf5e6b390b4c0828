#include "block/drive_image.hpp"

#include <algorithm>
#include <chrono>

namespace whistler {
namespace {

std::int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

}  // namespace

void DriveImage::ended(IoCounts::Kind& kind, std::int64_t begun, std::uint64_t bytes, bool well) {
  counts_.last_request = now();
  kind.nanoseconds += static_cast<std::uint64_t>(counts_.last_request - begun);
  ++(well ? kind.requests : kind.failed);
  kind.bytes += well ? bytes : 0;
}

Task<Result<void>> DriveImage::readv(std::uint64_t offset, IoVec to) {
  const auto begun = now();
  auto done = co_await image_->readv(offset, to);
  ended(counts_.reads, begun, iovec_bytes(to), done.has_value());
  co_return done;
}

Task<Result<void>> DriveImage::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto begun = now();
  const auto bytes = iovec_bytes(from);
  auto done = co_await image_->writev(offset, from, flags);
  counts_.highest_write = std::max(counts_.highest_write, done ? offset + bytes : 0);
  ended(counts_.writes, begun, bytes, done.has_value());
  co_return done;
}

Task<Result<void>> DriveImage::flush() {
  const auto begun = now();
  auto done = co_await image_->flush();
  ended(counts_.flushes, begun, 0, done.has_value());
  co_return done;
}

Task<Result<void>> DriveImage::discard(std::uint64_t offset, std::uint64_t bytes) {
  const auto begun = now();
  auto done = co_await image_->discard(offset, bytes);
  ended(counts_.discards, begun, bytes, done.has_value());
  co_return done;
}

Task<Result<void>> DriveImage::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  const auto begun = now();
  auto done = co_await image_->write_zeroes(offset, bytes, flags);
  ended(counts_.writes, begun, bytes, done.has_value());
  co_return done;
}

}  // namespace whistler
