#include <fmt/format.h>

#include <algorithm>

#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

Task<Result<void>> Image::resize(std::uint64_t bytes) {
  if (auto ok = check_write(0, 0); !ok) {
    co_return ok;
  }
  if (header_.version < 3 && header_.nb_snapshots != 0) {
    // A snapshot of version 2 does not store the size of its disk: it would come back with the new one.
    co_return fail(ErrorCode::kUnsupported,
                   name() + ": an image of version 2 with snapshots cannot be resized",
                   "Can't resize a v2 image which has snapshots");
  }
  const auto wanted = align_up(bytes, kSector);
  if (bytes > kMaxHostOffset || geometry_.l1_entries_for(wanted) * 8 > kMaxL1Bytes) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("{}: a disk of {} bytes is too large for clusters of {} bytes", name(), bytes,
                               geometry_.cluster_size()));
  }
  RangeLock::Hold everything(requests_, 0, ~std::uint64_t{0}, RangeLock::Mode::kExclusive);
  co_await everything;
  auto result = co_await bitmaps_->prepare_resize(wanted);
  if (!result) {
    co_return result;
  }
  const auto old_size = size();
  if (wanted > size()) {
    result = co_await grow(wanted);
  } else if (wanted < size()) {
    result = co_await shrink(wanted);
  }
  if (result && geometry_.external_data) {
    result = co_await data_file_->resize(wanted);
  }
  if (size() != old_size) {
    bitmaps_->resize(size());
    auto stored = co_await bitmaps_->sync();
    result = result ? stored : result;
  }
  co_return result;
}

Task<Result<void>> Image::grow(std::uint64_t bytes) {
  const auto old_size = size();
  const auto entries = geometry_.l1_entries_for(bytes);
  // What a shrink, or a longer backing file, left behind the old end must not come to light.
  const auto tail_end = std::min(bytes, geometry_.cluster_end(old_size));
  if (old_size < tail_end) {
    auto zeroed = co_await zero_part(old_size, tail_end - old_size);
    if (!zeroed) {
      co_return zeroed;
    }
  }
  if (entries > l1_.size()) {
    auto moved = co_await move_l1(entries);
    if (!moved) {
      co_return moved;
    }
  }
  // Whole clusters from here on: if the new end lies within the cluster of the old one, there are none.
  const auto begin = geometry_.cluster_end(old_size);
  const auto end = std::min(bytes, backing_ ? backing_->size() : 0);
  if (begin < end) {
    Result<void> hidden;
    if (header_.version >= 3) {
      hidden = co_await zero_clusters(begin, geometry_.cluster_end(end) - begin, true, false);
    } else {
      hidden = co_await zero_part(begin, end - begin);
    }
    if (!hidden) {
      co_return hidden;
    }
  }
  // The new size is on disk only with the zeroes behind the old end.
  auto flushed = co_await flush_covering(true);
  if (!flushed) {
    co_return flushed;
  }
  header_.size = bytes;
  auto written = co_await write_header_fields();
  if (!written) {
    header_.size = old_size;
  }
  co_return written;
}

Task<Result<void>> Image::shrink(std::uint64_t bytes) {
  const auto old_size = size();
  header_.size = bytes;
  auto done = co_await write_header_fields();
  if (!done) {
    header_.size = old_size;
    co_return done;
  }
  const auto end = geometry_.cluster_end(old_size);
  auto begin = geometry_.cluster_end(bytes);
  while (done && begin < end) {
    const auto next = std::min(end, align_down(begin, geometry_.l2_coverage()) + geometry_.l2_coverage());
    if ((l1_[geometry_.l1_index(begin)] & kOffsetMask) != 0) {
      done = co_await zero_clusters(begin, next - begin, true, true);
    }
    begin = next;
  }
  if (done) {
    done = co_await flush_covering(true);
  }
  if (done) {
    done = co_await drop_l2_tables(geometry_.l1_entries_for(bytes));
  }
  if (done) {
    done = co_await cut_file();
  }
  co_return done;
}

/// Gives up the tables of the L1 entries from `first` on, which map nothing any more.
Task<Result<void>> Image::drop_l2_tables(std::uint64_t first) {
  for (auto i = first; i < l1_.size(); ++i) {
    const auto table = l1_[i] & kOffsetMask;
    if (table == 0 || (l1_[i] & kCopied) == 0) {
      continue;
    }
    refcounts_->remove_metadata(table >> geometry_.cluster_bits);
    l2_cache_->drop(table, geometry_.cluster_size());
    free_later(table >> geometry_.cluster_bits, 1, true);
    set_l1(i, 0);
  }
  auto done = co_await flush_covering(true);
  if (done && refcounts_->cache().has_dirty()) {  // the counts of what became free just now
    done = co_await flush_covering(true);
  }
  co_return done;
}

/// Cuts off what is unused at the end of the file.
Task<Result<void>> Image::cut_file() {
  const auto clusters = geometry_.clusters_for(file_->size());
  auto end = clusters;
  while (end > 1 && !is_guarded(end - 1)) {
    auto uses = co_await refcounts_->get(end - 1);
    if (!uses) {
      co_return std::unexpected(uses.error());
    }
    if (*uses != 0) {
      break;
    }
    --end;
  }
  Result<void> done;
  if (end < clusters) {
    done = co_await file_->resize(end << geometry_.cluster_bits);
  }
  co_return done;
}

/// Puts the L1 table, enlarged to `entries`, into a new place.
Task<Result<void>> Image::move_l1(std::uint64_t entries) {
  auto flushed =
      co_await flush_covering(true);  // the old table is complete on disk, and nothing of it is dirty
  if (!flushed) {
    co_return flushed;
  }
  file_->debug_event(DebugEvent::kL1GrowAllocTable);
  auto run = co_await refcounts_->allocate_row(geometry_.clusters_for(entries * 8));
  if (!run) {
    co_return std::unexpected(run.error());
  }
  std::vector<std::uint8_t> raw(static_cast<std::size_t>(run->count << geometry_.cluster_bits));
  for (std::size_t i = 0; i < l1_.size(); ++i) {
    store_be<std::uint64_t>(&raw[i * 8], l1_[i]);
  }
  const iovec vec{raw.data(), raw.size()};
  file_->debug_event(DebugEvent::kL1GrowWriteTable);
  auto done = co_await file_->writev(run->first << geometry_.cluster_bits, {&vec, 1});
  if (done) {
    done = co_await flush_covering(true);  // table and refcounts are there before the header names them
  }
  if (!done) {
    auto undone = co_await refcounts_->adjust(run->first, run->count, -1);
    static_cast<void>(undone);  // a leak at worst
    co_return done;
  }
  const auto old_offset = header_.l1_table_offset;
  const auto old_size = header_.l1_size;
  header_.l1_table_offset = run->first << geometry_.cluster_bits;
  header_.l1_size = static_cast<std::uint32_t>(entries);
  file_->debug_event(DebugEvent::kL1GrowActivateTable);
  done = co_await write_header_fields();
  if (!done) {  // which table the header names is unknown until it can be written again; the new one's
                // clusters stay taken
    header_.l1_table_offset = old_offset;
    header_.l1_size = old_size;
    co_return done;
  }
  l1_.resize(static_cast<std::size_t>(entries));
  const auto old_clusters = geometry_.clusters_for(std::uint64_t{old_size} * 8);
  refcounts_->add_metadata(run->first, run->count);
  refcounts_->remove_metadata(old_offset >> geometry_.cluster_bits, old_clusters);
  free_later(old_offset >> geometry_.cluster_bits, old_clusters, false);
  co_return done;
}

}  // namespace whistler::qcow2
