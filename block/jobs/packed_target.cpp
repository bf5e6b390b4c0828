#include "block/jobs/packed_target.hpp"

#include <algorithm>
#include <vector>

#include "block/iovec.hpp"
#include "block/qcow2/compression.hpp"
#include "block/uring/stoppable.hpp"

namespace whistler {

bool can_be_packed(const qcow2::Image* image) {
  return image != nullptr && !image->encrypted() && !image->header().geometry().external_data;
}

Task<Result<void>> PackedTarget::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto cluster = image_.header().geometry().cluster_size();
  const auto bytes = iovec_bytes(from);
  Result<void> done;
  for (std::uint64_t at = 0; at < bytes && done;) {
    const auto now = std::min(cluster, bytes - at);
    const IoSlice part(from, at, now);
    done = co_await write_cluster(offset + at, part.vec());
    at += now;
  }
  if (done && flags.fua) {
    done = co_await below().flush();
  }
  co_return done;
}

Task<Result<void>> PackedTarget::write_cluster(std::uint64_t offset, IoVec from) {
  std::vector<std::uint8_t> cluster(static_cast<std::size_t>(image_.header().geometry().cluster_size()));
  copy_from_iovec(std::span(cluster).first(static_cast<std::size_t>(iovec_bytes(from))), from, 0);
  auto pack = [method = image_.header().compression, cluster = std::move(cluster)] {
    return qcow2::compress_cluster(method, cluster);
  };
  const auto packed = co_await in_thread(ring_, std::move(pack), &never_);
  Result<void> done;
  if (!packed || packed->empty()) {
    done = co_await below().writev(offset, from);
  } else {
    done = co_await image_.write_packed(offset, *packed);
  }
  co_return done;
}

}  // namespace whistler
