// Where a range of the disk lies, for `map`.
#include <algorithm>

#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

Task<Result<Image::Extent>> Image::extent_at(std::uint64_t offset, std::uint64_t bytes) {
  auto hold = lock_clusters(offset, bytes, RangeLock::Mode::kShared);
  co_await hold;
  auto run = co_await find_run(offset, bytes);
  if (!run) {
    if (run.error().code == ErrorCode::kCorrupt) {
      co_await mark_corrupt(run.error());
    }
    co_return std::unexpected(run.error());
  }
  Extent extent{.kind = run->kind, .bytes = run->bytes};
  if (run->kind == Kind::kData) {
    extent.host = run->host;
  }
  const auto table = l1_[static_cast<std::size_t>(geometry_.l1_index(offset))] & kOffsetMask;
  const bool may_keep_place =
      run->kind == Kind::kZero || (run->kind == Kind::kUnallocated && geometry_.extended_l2);
  if (!may_keep_place || table == 0) {
    co_return extent;
  }
  // Zero clusters, and subclusters without content, may keep a place; runs do not tell. A run lies within one
  // slice.
  auto pin = co_await l2_cache_->get(slice_offset(table, offset));
  if (!pin) {
    co_return std::unexpected(pin.error());
  }
  const auto host_at = [&](std::uint64_t guest) {
    return geometry_.host_of(load_l2(pin->data(), index_in_slice(guest), geometry_));
  };
  const auto first = host_at(offset);
  if (first) {
    extent.host = *first + geometry_.in_cluster(offset);
  }
  for (auto at = geometry_.cluster_start(offset) + geometry_.cluster_size(); at < offset + run->bytes;
       at += geometry_.cluster_size()) {
    const auto next = host_at(at);
    if (next.has_value() != first.has_value() || (next && *next != *extent.host + (at - offset))) {
      extent.bytes = at - offset;
      break;
    }
  }
  co_return extent;
}

}  // namespace whistler::qcow2
