#include "block/compress_on_write.hpp"

#include <algorithm>

#include "base/bytes.hpp"
#include "block/aligned_buffer.hpp"
#include "block/iovec.hpp"
#include "block/request.hpp"

namespace whistler {

Task<Result<void>> CompressOnWrite::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto bytes = iovec_bytes(from);
  auto done = check_request(*this, offset, bytes, true);
  for (std::uint64_t at = 0; done && at < bytes;) {
    const auto begin = offset + at;
    const auto end = std::min(offset + bytes, align_down(begin, cluster_size()) + cluster_size());
    const IoSlice part(from, at, end - begin);
    done = co_await write_cluster(begin, end, part);
    at = end - offset;
  }
  if (done && flags.fua) {
    done = co_await flush();
  }
  co_return done;
}

Task<Result<void>> CompressOnWrite::write_cluster(std::uint64_t begin, std::uint64_t end, IoVec part) {
  const auto first = align_down(begin, cluster_size());
  const auto last = std::min(first + cluster_size(), size());
  RangeLock::Hold hold(clusters_, first, last, RangeLock::Mode::kExclusive);
  co_await hold;
  AlignedBuffer buffer(static_cast<std::size_t>(last - first));
  const iovec whole = buffer.vec();
  Result<void> done;
  if (begin != first || end != last) {
    done = co_await image_.readv(first, {&whole, 1});
  }
  if (done) {
    copy_from_iovec(buffer.bytes().subspan(static_cast<std::size_t>(begin - first),
                                           static_cast<std::size_t>(end - begin)),
                    part, 0);
    done = co_await image_.write_compressed(first, {&whole, 1});
  }
  co_return done;
}

Task<Result<void>> CompressOnWrite::discard(std::uint64_t offset, std::uint64_t bytes) {
  RangeLock::Hold hold(clusters_, offset, offset + bytes, RangeLock::Mode::kExclusive);
  co_await hold;
  auto done = co_await image_.discard(offset, bytes);
  co_return done;
}

Task<Result<void>> CompressOnWrite::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  RangeLock::Hold hold(clusters_, offset, offset + bytes, RangeLock::Mode::kExclusive);
  co_await hold;
  auto done = co_await image_.write_zeroes(offset, bytes, flags);
  co_return done;
}

}  // namespace whistler
