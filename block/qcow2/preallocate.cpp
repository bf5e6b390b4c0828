// Giving guest clusters their host clusters before anything is written to them.
#include <algorithm>

#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

/// Whether the entry of `guest` can be given a host cluster without a change of what the guest reads.
bool Image::may_preallocate(L2Entry entry, std::uint64_t guest) const {
  if ((entry.value & kCompressedFlag) != 0 || geometry_.host_of(entry)) {
    return false;
  }
  const bool backed = backing_ && guest < backing_->size();
  return !backed || geometry_.extended_l2 || geometry_.classify(entry, 0).kind == Kind::kZero;
}

Task<Result<void>> Image::preallocate(std::uint64_t offset, std::uint64_t bytes, Preallocation mode) {
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  if (bytes == 0 || mode == Preallocation::kOff) {
    co_return Result<void>{};
  }
  // Nobody else may make the file longer meanwhile: resizing it could cut off what they write.
  RangeLock::Hold everything(requests_, 0, ~std::uint64_t{0}, RangeLock::Mode::kExclusive);
  co_await everything;
  auto at = geometry_.cluster_start(offset);
  const auto end = geometry_.cluster_end(offset + bytes);
  Result<void> result;
  while (at < end) {
    auto next = co_await preallocate_row(at, end, mode);
    if (!next) {
      result = std::unexpected(next.error());
      break;
    }
    at = *next;
  }
  if (!result && result.error().code == ErrorCode::kCorrupt) {
    co_await mark_corrupt(result.error());
  }
  co_return result;
}

/// Does the beginning of [offset, end), whole clusters, as far as one slice and one row of host clusters take
/// it, and gives where the rest begins.
Task<Result<std::uint64_t>> Image::preallocate_row(std::uint64_t offset, std::uint64_t end,
                                                   Preallocation mode) {
  auto room = co_await keep_within_bounds();
  if (!room) {
    co_return std::unexpected(room.error());
  }
  auto pin = co_await writable_slice(offset);
  if (!pin) {
    co_return std::unexpected(pin.error());
  }
  const auto cluster_size = geometry_.cluster_size();
  const auto first = index_in_slice(offset);
  const auto limit = std::min((end - offset) >> geometry_.cluster_bits, entries_in_slice() - first);
  std::uint64_t wanted = 0;
  while (wanted < limit &&
         may_preallocate(load_l2(pin->data(), first + wanted, geometry_), offset + wanted * cluster_size)) {
    ++wanted;
  }
  if (wanted == 0) {
    co_return offset + cluster_size;
  }
  ClusterRun run{.first = offset >> geometry_.cluster_bits, .count = wanted};
  if (!geometry_.external_data) {
    auto allocated = co_await refcounts_->allocate(wanted);
    if (!allocated) {
      co_return std::unexpected(allocated.error());
    }
    run = *allocated;
  }
  const auto host = run.first << geometry_.cluster_bits;
  const auto bytes = geometry_.external_data ? std::min(run.count * cluster_size, size() - offset)
                                             : run.count * cluster_size;
  Result<void> done;
  if (!run.fresh && host < data().size()) {  // used before: whatever lies there must not show
    done = co_await data().write_zeroes(host, std::min(bytes, data().size() - host));
  }
  if (done && mode != Preallocation::kMetadata) {
    done = co_await data().preallocate(host, bytes, mode);
  }
  if (done && data().size() < host + bytes) {
    done = co_await data().resize(host + bytes);
  }
  if (!done) {
    if (!geometry_.external_data) {
      auto undone = co_await refcounts_->adjust(run.first, run.count, -1);
      static_cast<void>(undone);  // a leak at worst
    }
    co_return std::unexpected(done.error());
  }
  for (std::uint64_t i = 0; i < run.count; ++i) {
    auto entry = load_l2(pin->data(), first + i, geometry_);
    // A zero flag stays; subclusters keep saying where their content is.
    entry.value |= (host + i * cluster_size) | kCopied;
    store_l2(pin->data(), first + i, geometry_, entry);
  }
  pin->mark_dirty();
  co_return offset + run.count* cluster_size;
}

}  // namespace whistler::qcow2
