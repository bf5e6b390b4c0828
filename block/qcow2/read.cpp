#include <fmt/format.h>

#include <algorithm>

#include "block/gather.hpp"
#include "block/qcow2/compression.hpp"
#include "block/qcow2/image.hpp"
#include "block/request.hpp"

namespace whistler::qcow2 {

namespace {
constexpr std::size_t kDecompressedClusters = 4;
constexpr std::size_t kMaxTogether = 64;  ///< pieces of one request under way
}  // namespace

Task<Result<void>> Image::readv(std::uint64_t offset, IoVec to) {
  const auto bytes = iovec_bytes(to);
  if (auto ok = check_request(*this, offset, bytes, false); !ok) {
    co_return ok;
  }
  if (bytes == 0) {
    co_return Result<void>{};
  }
  auto hold = lock_clusters(offset, bytes, RangeLock::Mode::kShared);
  co_await hold;
  auto cached = find_run_cached(offset, bytes);
  if (!cached) {
    cached = co_await find_run(offset, bytes);
  }
  Result<void> result;
  if (!*cached) {
    result = std::unexpected(cached->error());
  } else if ((*cached)->kind == Kind::kData && (*cached)->bytes == bytes) {
    // By far the most frequent case: one layer less.
    data().debug_event(DebugEvent::kReadAio);
    if (encrypted()) {
      result = co_await read_encrypted(offset, (*cached)->host, to);
    } else {
      result = co_await data().readv((*cached)->host, to);
    }
  } else {
    result = co_await read_runs(offset, to, **cached);
  }
  if (!result && result.error().code == ErrorCode::kCorrupt) {
    co_await mark_corrupt(result.error());
  }
  co_return result;
}

Task<Result<void>> Image::read_locked(std::uint64_t offset, IoVec to) {
  auto run = co_await find_run(offset, iovec_bytes(to));
  if (!run) {
    co_return std::unexpected(run.error());
  }
  auto result = co_await read_runs(offset, to, *run);
  co_return result;
}

Task<Result<void>> Image::read_runs(std::uint64_t offset, IoVec to, Run run) {
  const auto total = iovec_bytes(to);
  if (run.bytes == total) {
    auto read = co_await read_run(offset, run, to);
    co_return read;
  }
  // The pieces are read together; their places are found one after the other, mostly without waiting.
  Gather pieces;
  Result<void> found;
  for (std::uint64_t done = 0;;) {
    pieces.start(read_part(offset + done, run, to, done));
    done += run.bytes;
    if (done == total || pieces.failed()) {
      break;
    }
    co_await pieces.wait_below(kMaxTogether);
    auto next = co_await find_run(offset + done, total - done);
    if (!next) {
      found = std::unexpected(next.error());
      break;
    }
    run = *next;
  }
  auto read = co_await pieces.wait();
  co_return read ? found : read;
}

/// Reads one run into its place, `done` bytes into the request.
Task<Result<void>> Image::read_part(std::uint64_t offset, Run run, IoVec to, std::uint64_t done) {
  const IoSlice piece(to, done, run.bytes);
  auto read = co_await read_run(offset, run, piece);
  co_return read;
}

Task<Result<void>> Image::read_run(std::uint64_t offset, const Run& run, IoVec to) {
  Result<void> result;
  switch (run.kind) {
    case Kind::kData:
      data().debug_event(DebugEvent::kReadAio);
      if (encrypted()) {
        result = co_await read_encrypted(offset, run.host, to);
      } else {
        result = co_await data().readv(run.host, to);
      }
      break;
    case Kind::kUnallocated: result = co_await read_backing(offset, to); break;
    case Kind::kCompressed: result = co_await read_compressed(offset, run.compressed, to); break;
    case Kind::kZero:
    case Kind::kInvalid: zero_iovec(to, 0, run.bytes); break;
  }
  co_return result;
}

Task<Result<void>> Image::read_backing(std::uint64_t offset, IoVec to) {
  const auto bytes = iovec_bytes(to);
  const auto backed = backing_ && offset < backing_->size() ? std::min(bytes, backing_->size() - offset) : 0;
  zero_iovec(to, backed, bytes - backed);
  if (backed == 0) {
    co_return Result<void>{};
  }
  const IoSlice part(to, 0, backed);
  auto read = co_await backing_->readv(offset, part);
  co_return read;
}

Task<Result<void>> Image::read_compressed(std::uint64_t offset, std::uint64_t entry, IoVec to) {
  const auto in_cluster = static_cast<std::size_t>(geometry_.in_cluster(offset));
  const auto bytes = static_cast<std::size_t>(iovec_bytes(to));
  const auto kept = std::find_if(decompressed_.begin(), decompressed_.end(),
                                 [=](const DecompressedCluster& cluster) { return cluster.entry == entry; });
  if (kept != decompressed_.end()) {
    std::rotate(kept, kept + 1, decompressed_.end());
    copy_to_iovec(to, 0, std::span(decompressed_.back().bytes).subspan(in_cluster, bytes));
    co_return Result<void>{};
  }
  const auto extent = geometry_.compressed_extent(entry);
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(extent.bytes));
  const iovec vec{packed.data(), packed.size()};
  auto read = co_await file_->readv(extent.offset, {&vec, 1});
  if (!read) {
    co_return read;
  }
  DecompressedCluster cluster{entry,
                              std::vector<std::uint8_t>(static_cast<std::size_t>(geometry_.cluster_size()))};
  if (!decompress_cluster(header_.compression, packed, cluster.bytes)) {
    co_return fail(
        ErrorCode::kIo,
        fmt::format("{}: the compressed cluster of guest offset {:#x} ({} bytes at offset {:#x}) is damaged",
                    name(), geometry_.cluster_start(offset), extent.bytes, extent.offset));
  }
  copy_to_iovec(to, 0, std::span(cluster.bytes).subspan(in_cluster, bytes));
  if (decompressed_.size() == kDecompressedClusters) {
    decompressed_.erase(decompressed_.begin());
  }
  decompressed_.push_back(std::move(cluster));
  co_return Result<void>{};
}

Task<Result<bool>> Image::known_zero(std::uint64_t offset, std::uint64_t bytes) {
  while (bytes != 0) {
    auto run = co_await find_run(offset, bytes);
    if (!run) {
      co_return std::unexpected(run.error());
    }
    const bool unbacked = run->kind == Kind::kUnallocated && (!backing_ || offset >= backing_->size());
    if (run->kind != Kind::kZero && !unbacked) {
      co_return false;
    }
    offset += run->bytes;
    bytes -= run->bytes;
  }
  co_return true;
}

Task<Result<BlockStatus>> Image::block_status(std::uint64_t offset, std::uint64_t bytes) {
  if (auto ok = check_request(*this, offset, bytes, false); !ok) {
    co_return std::unexpected(ok.error());
  }
  if (bytes == 0) {
    co_return BlockStatus{};
  }
  auto hold = lock_clusters(offset, bytes, RangeLock::Mode::kShared);
  co_await hold;
  auto run = co_await find_run(offset, bytes);
  if (!run) {
    if (run.error().code == ErrorCode::kCorrupt) {
      co_await mark_corrupt(run.error());
    }
    co_return std::unexpected(run.error());
  }
  BlockStatus status{
      .bytes = run->bytes, .data = run->kind != Kind::kUnallocated, .zero = run->kind == Kind::kZero};
  if (!status.data) {
    status.zero = !backing_ || offset >= backing_->size();
    if (!status.zero) {
      status.bytes = std::min(status.bytes, backing_->size() - offset);
    }
  }
  // Neighbours in other slices or other places of the file may be alike; asking on is the caller's affair.
  co_return status;
}

}  // namespace whistler::qcow2
