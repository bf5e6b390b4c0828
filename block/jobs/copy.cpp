#include "block/jobs/copy.hpp"

#include <algorithm>
#include <bit>
#include <new>

#include "base/bytes.hpp"

namespace whistler {
namespace {

constexpr std::align_val_t kPage{4096};
constexpr std::uint64_t kSmallestUnit = 65536;

}  // namespace

Task<Result<ChainStatus>> unit_status(BlockDevice& top, const BlockDevice* base, std::uint64_t offset,
                                      std::uint64_t bytes, std::uint64_t unit) {
  auto status = co_await chain_status(top, base, offset, bytes);
  if (status && status->bytes < bytes) {
    const auto whole = align_down(offset + status->bytes, unit);
    if (whole > offset) {
      status->bytes = whole - offset;
    } else {
      *status = ChainStatus{std::min(unit, bytes), true, false, true};
    }
  }
  co_return status;
}

unsigned copy_unit_bits(std::uint64_t cluster) {
  return static_cast<unsigned>(std::bit_width(std::bit_ceil(std::max(cluster, kSmallestUnit)) - 1));
}

CopyBuffer::CopyBuffer(std::size_t bytes)
    : memory_(static_cast<std::uint8_t*>(::operator new(bytes, kPage))), bytes_(bytes) {}

void CopyBuffer::Free::operator()(std::uint8_t* memory) const { ::operator delete(memory, kPage); }

Task<Copied> copy_stretch(BlockDevice& source, BlockDevice& target, std::uint64_t offset, std::uint64_t bytes,
                          ChainStatus status, const CopyBuffer& buffer) {
  Copied copied;
  if (status.zero) {
    copied.write = true;
    copied.result = co_await target.write_zeroes(offset, bytes);
    co_return copied;
  }
  const auto end = offset + bytes;
  while (offset < end && copied.result) {
    const auto now = std::min<std::uint64_t>(end - offset, buffer.size());
    const auto memory = buffer.first(now);
    const iovec vec{memory.data(), memory.size()};
    copied.write = false;
    copied.result = co_await source.readv(offset, {&vec, 1});
    if (copied.result) {
      copied.write = true;
      copied.result = co_await target.writev(offset, {&vec, 1});
    }
    offset += now;
  }
  co_return copied;
}

Task<Result<void>> walk_disk(BlockJob& job, DiskWalk& work, std::uint64_t size, IfIgnored if_ignored) {
  job.expect(size);
  const CopyBuffer buffer(static_cast<std::size_t>(job.piece_bytes()));
  Result<void> done;
  Result<void> ignored;
  for (std::uint64_t at = 0; at < size && done;) {
    auto bytes = std::min(job.piece_bytes(), size - at);
    auto copied = co_await work.step(at, bytes, buffer);
    if (!copied.result) {
      const bool go_on = if_ignored == IfIgnored::kGoOn &&
                         job.policy(copied.result.error(), copied.write) == OnJobError::kIgnore;
      done = co_await job.judge(copied.result.error(), copied.write);
      if (!go_on) {
        continue;
      }
      if (ignored) {
        ignored = copied.result;
      }
    }
    if (done) {
      job.progress(bytes);
      at += bytes;
      done = co_await job.pace(bytes);
    }
  }
  co_return done ? ignored : done;
}

}  // namespace whistler
