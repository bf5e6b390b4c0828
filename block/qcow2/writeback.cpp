// Making the image durable: the order of host writes, and every barrier there is.
//
// One writeback at a time. It takes copies of everything dirty at one moment, and then:
//   1. writes refcount blocks;                          (counts in memory are never lower than the disk
//   needs)
//      barrier A: data, refcounts, new and copied L2 tables are durable;
//   2. writes L2 slices and L1 sectors as copied;       (each entry names only what barrier A covers)
//      barrier B: nothing on disk names the clusters that were unlinked before the copies were made;
//   3. gives those clusters back: to the host (discard), then to the allocator.
// What was dirtied or unlinked after the copies were made waits for the next writeback. If a step fails, what
// it should have written is dirty again and nothing is freed.
#include <algorithm>

#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

Task<Result<void>> Image::flush() {
  if (read_only()) {
    co_return Result<void>{};
  }
  auto result = co_await flush_covering(true);
  if (!result && result.error().code == ErrorCode::kCorrupt) {
    co_await mark_corrupt(result.error());
  }
  co_return result;
}

/// A writeback that starts after this call; several callers who wait for their turn share one.
Task<Result<void>> Image::flush_covering(bool durable) {
  const auto mine = ++flushes_asked_;
  const auto guard = co_await writeback_mutex_.lock();
  if (flushes_covered_ >= mine || (!durable && within_bounds())) {
    co_return Result<void>{};
  }
  const auto covered = flushes_asked_;
  auto result = co_await writeback(durable);
  if (result && durable) {
    flushes_covered_ = std::max(flushes_covered_, covered);
  }
  co_return result;
}

Task<Result<void>> Image::barrier() {
  if (data_file_) {
    auto flushed = co_await data_file_->flush();
    if (!flushed) {
      co_return flushed;
    }
  }
  file_->debug_event(DebugEvent::kFlushToDisk);
  auto flushed = co_await file_->flush();
  co_return flushed;
}

Task<Result<void>> Image::writeback(bool durable) {
  if (header_unsettled_) {
    auto settled = co_await write_header_fields();
    if (!settled) {
      co_return settled;
    }
  }
  if (lazy_ && !counts_deferred_ && (l2_cache_->has_dirty() || !dirty_l1_sectors_.empty())) {
    auto deferred = co_await defer_counts();
    if (!deferred) {
      co_return deferred;
    }
  }
  // Counts that may stay behind are written only when they crowd the memory.
  const bool leave_counts = lazy_ && counts_deferred_ && !refcounts_->cache().crowded();
  // The moment: no waiting between these four lines.
  auto counts = leave_counts ? std::vector<SliceCache::Dirty>{} : refcounts_->cache().take_dirty();
  auto slices = l2_cache_->take_dirty();
  auto l1 = take_dirty_l1();
  auto frees = std::exchange(pending_frees_, {});

  auto done = co_await write_metadata(counts, slices, l1);
  if (done && (durable || !frees.empty())) {
    done = co_await barrier();  // B
  }
  if (done) {
    done = co_await apply_frees(frees);
  } else {
    // What of it has reached the disk is unknown: all of it is written again.
    for (auto* taken : {&counts, &slices}) {
      for (auto& slice : *taken) {
        slice.pin.mark_dirty();
      }
    }
    for (const auto& sector : l1) {
      dirty_l1_sectors_.insert(sector.number);
    }
  }
  pending_frees_.insert(pending_frees_.end(), frees.begin(), frees.end());  // those not done
  co_return done;
}

Task<Result<void>> Image::defer_counts() {
  header_.incompatible |= kDirty;
  auto written = co_await write_header_fields();
  if (!written) {
    header_.incompatible &= ~kDirty;
  }
  counts_deferred_ = written.has_value();
  co_return written;
}

Task<Result<void>> Image::settle_counts() {
  lazy_ = false;
  auto done = co_await flush_covering(true);
  if (done && refcounts_->cache().has_dirty()) {  // of clusters that became free just now
    done = co_await flush_covering(true);
  }
  if (done && counts_deferred_) {
    header_.incompatible &= ~kDirty;
    done = co_await write_header_fields();
    counts_deferred_ = !done.has_value();
  }
  co_return done;
}

Task<Result<void>> Image::write_metadata(std::vector<SliceCache::Dirty>& counts,
                                         std::vector<SliceCache::Dirty>& slices,
                                         const std::vector<L1Sector>& l1) {
  if (!counts.empty()) {
    file_->debug_event(DebugEvent::kRefblockUpdatePart);
  }
  auto done = co_await write_slices(*file_, counts);
  if (!done || (slices.empty() && l1.empty())) {
    co_return done;
  }
  done = co_await barrier();  // A
  if (done && !slices.empty()) {
    file_->debug_event(DebugEvent::kL2Update);
  }
  if (done) {
    done = co_await write_slices(*file_, slices);
  }
  if (done) {
    done = co_await write_l1(l1);
  }
  co_return done;
}

std::vector<Image::L1Sector> Image::take_dirty_l1() {
  std::vector<L1Sector> sectors;
  for (const auto number : dirty_l1_sectors_) {
    const auto first = static_cast<std::size_t>(number * (kSector / 8));
    const auto count = std::min<std::size_t>(kSector / 8, l1_.size() - first);
    L1Sector sector{number, std::vector<std::uint8_t>(count * 8)};
    for (std::size_t i = 0; i < count; ++i) {
      store_be<std::uint64_t>(&sector.bytes[i * 8], l1_[first + i]);
    }
    sectors.push_back(std::move(sector));
  }
  dirty_l1_sectors_.clear();
  return sectors;
}

Task<Result<void>> Image::write_l1(const std::vector<L1Sector>& sectors) {
  for (const auto& sector : sectors) {
    const iovec vec{const_cast<std::uint8_t*>(sector.bytes.data()), sector.bytes.size()};
    file_->debug_event(DebugEvent::kL1Update);
    auto written = co_await file_->writev(header_.l1_table_offset + sector.number * kSector, {&vec, 1});
    if (!written) {
      co_return written;
    }
  }
  co_return Result<void>{};
}

/// Drops those that are done from `frees`.
Task<Result<void>> Image::apply_frees(std::vector<PendingFree>& frees) {
  Result<void> result;
  std::size_t done = 0;
  std::size_t punched = 0;
  for (; done < frees.size(); ++done) {
    if (frees[done].discard && options_.discard && options_.pass_discards && punched <= done) {
      punched = co_await discard_row(frees, done);
    }
    result = co_await refcounts_->adjust(frees[done].cluster, 1, -1);
    if (!result) {
      break;
    }
  }
  frees.erase(frees.begin(), frees.begin() + static_cast<std::ptrdiff_t>(done));
  co_return result;
}

/// Gives the row of neighbouring clusters that begins at frees[first] back to the host, as far as nobody else
/// uses them: before the allocator may hand them out again, never after. Returns the index behind the row.
Task<std::size_t> Image::discard_row(const std::vector<PendingFree>& frees, std::size_t first) {
  const auto begin = frees[first].cluster;
  auto end = first;
  for (; end < frees.size() && frees[end].discard && frees[end].cluster == begin + (end - first); ++end) {
    auto uses = co_await refcounts_->get(frees[end].cluster);
    if (!uses || *uses != 1) {
      break;
    }
  }
  if (end != first) {
    auto done =
        co_await file_->discard(begin << geometry_.cluster_bits, (end - first) << geometry_.cluster_bits);
    static_cast<void>(done);  // that the host cannot do it is no matter
  }
  co_return std::max(end, first + 1);
}

void Image::set_l1(std::uint64_t index, std::uint64_t value) {
  l1_[index] = value;
  dirty_l1_sectors_.insert(index * 8 / kSector);
}

void Image::free_later(std::uint64_t first, std::uint64_t count, bool discard) {
  for (std::uint64_t i = 0; i < count; ++i) {
    pending_frees_.push_back({first + i, discard});
  }
}

void Image::free_mapping_later(L2Entry entry, bool discard) {
  if ((entry.value & kCompressedFlag) != 0) {
    const auto extent = geometry_.compressed_extent(entry.value);
    const auto first = extent.offset >> geometry_.cluster_bits;
    const auto last = (extent.offset + extent.bytes - 1) >> geometry_.cluster_bits;
    free_later(first, last - first + 1, false);
    decompressed_.clear();
    return;
  }
  const auto host = geometry_.host_of(entry);
  if (host && !geometry_.external_data) {
    free_later(*host >> geometry_.cluster_bits, 1, discard);
  }
}

}  // namespace whistler::qcow2
