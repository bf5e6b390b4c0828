// Compacting: data clusters and compressed clusters move into holes.
#include <algorithm>

#include "block/qcow2/compact.hpp"
#include "block/qcow2/snapshots.hpp"

namespace whistler::qcow2 {

namespace {
constexpr std::uint64_t kMoveBytes = 1024 * 1024;
}

Task<Result<void>> Compactor::find_tables() {
  tables_.clear();
  snapshot_l1_.clear();
  for (std::size_t i = 0; i < image_.l1_.size(); ++i) {
    const auto table = image_.l2_table_at(i);
    if (!table) {
      co_return std::unexpected(table.error());
    }
    if (*table != 0) {
      tables_[*table].names.push_back({kDisk, i});
      tables_[*table].metadata = true;
    }
  }
  Snapshots reader(image_);
  auto list = co_await reader.read_table();
  if (!list) {
    co_return std::unexpected(list.error());
  }
  snapshots_ = std::move(*list);
  for (std::size_t s = 0; s < snapshots_.size(); ++s) {
    auto l1 = co_await reader.read_l1(snapshots_[s]);
    if (!l1) {
      co_return std::unexpected(l1.error());
    }
    for (std::size_t i = 0; i < l1->size(); ++i) {
      if (const auto table = (*l1)[i] & kOffsetMask; table != 0) {
        tables_[table].names.push_back({s, i});
      }
    }
    snapshot_l1_.push_back(std::move(*l1));
  }
  co_return Result<void>{};
}

Task<Result<void>> Compactor::find_uses() {
  data_uses_.clear();
  compressed_uses_.clear();
  for (const auto& [offset, table] : tables_) {
    auto done = co_await find_uses_of(offset, table);
    if (!done) {
      co_return done;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Compactor::find_uses_of(std::uint64_t offset, const Table& table) {
  auto& cache = *image_.l2_cache_;
  const bool movable = !geometry_.external_data;
  for (std::uint64_t at = 0; at < geometry_.cluster_size(); at += cache.slice_bytes()) {
    auto pin = co_await cache.get(offset + at);
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    for (std::uint64_t i = 0; i < image_.entries_in_slice(); ++i) {
      const auto entry = load_l2(pin->data(), i, geometry_);
      const Use use{offset, at / geometry_.l2_entry_bytes() + i, table.names.size()};
      if ((entry.value & kCompressedFlag) != 0) {
        const auto extent = geometry_.compressed_extent(entry.value);
        if (beyond_goal(extent.offset + extent.bytes - 1)) {
          compressed_uses_[entry.value].push_back(use);
        }
      } else if (const auto host = geometry_.host_of(entry); host && movable && beyond_goal(*host)) {
        data_uses_[*host >> geometry_.cluster_bits].push_back(use);
      }
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Compactor::relink(const std::vector<Use>& uses, std::uint64_t value, std::uint64_t keep) {
  auto& cache = *image_.l2_cache_;
  for (const auto& use : uses) {
    const auto byte = use.index * geometry_.l2_entry_bytes();
    auto pin = co_await cache.get(use.table + align_down(byte, cache.slice_bytes()));
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    const auto index = use.index & (image_.entries_in_slice() - 1);
    auto entry = load_l2(pin->data(), index, geometry_);
    entry.value = (entry.value & keep) | value;
    store_l2(pin->data(), index, geometry_, entry);
    pin->mark_dirty();
  }
  co_return Result<void>{};
}

Task<Result<void>> Compactor::move_data() {
  const auto total = data_uses_.size();
  std::size_t moved = 0;
  for (auto at = data_uses_.begin(); at != data_uses_.end();) {
    const auto first = at->first;
    std::uint64_t count = 0;
    const auto most = std::max<std::uint64_t>(1, kMoveBytes >> geometry_.cluster_bits);
    for (; at != data_uses_.end() && at->first == first + count && count < most; ++at) {
      ++count;
    }
    for (std::uint64_t done = 0; done < count;) {
      auto row = co_await move_row(first + done, count - done);
      if (!row) {
        co_return std::unexpected(row.error());
      }
      if (*row == 0) {
        co_return Result<void>{};  // no hole is left that lies lower
      }
      done += *row;
    }
    moved += static_cast<std::size_t>(count);
    show(static_cast<double>(moved), static_cast<double>(total), 50, 95);
  }
  co_return Result<void>{};
}

/// Moves up to `count` neighbouring clusters; gives how many fitted into the lowest hole.
Task<Result<std::uint64_t>> Compactor::move_row(std::uint64_t first, std::uint64_t count) {
  auto room = co_await image_.keep_within_bounds();
  if (!room) {
    co_return std::unexpected(room.error());
  }
  auto& refcounts = *image_.refcounts_;
  auto run = co_await refcounts.allocate(count);
  if (!run) {
    co_return std::unexpected(run.error());
  }
  if (run->first + run->count > first) {
    auto undone = co_await refcounts.adjust(run->first, run->count, -1);
    if (!undone) {
      co_return std::unexpected(undone.error());
    }
    co_return std::uint64_t{0};
  }
  std::vector<std::uint8_t> buffer(static_cast<std::size_t>(run->count << geometry_.cluster_bits));
  const iovec vec{buffer.data(), buffer.size()};
  auto done = co_await image_.file_->readv(first << geometry_.cluster_bits, {&vec, 1});
  if (done) {
    done = image_.encrypt_for_move(first << geometry_.cluster_bits, run->first << geometry_.cluster_bits,
                                   buffer);
  }
  if (done) {
    done = co_await image_.file_->writev(run->first << geometry_.cluster_bits, {&vec, 1});
  }
  for (std::uint64_t i = 0; done && i < run->count; ++i) {
    const auto& uses = data_uses_.at(first + i);
    std::uint64_t paths = 0;
    for (const auto& use : uses) {
      paths += use.paths;
    }
    if (paths > 1) {
      done = co_await refcounts.set(run->first + i, paths);
    }
    if (done) {
      done = co_await relink(uses, (run->first + i) << geometry_.cluster_bits, ~kOffsetMask);
    }
    for (std::uint64_t p = 0; done && p < paths; ++p) {
      image_.free_later(first + i, 1, true);
    }
    ++report_.moved;
  }
  if (!done) {
    co_return std::unexpected(done.error());
  }
  co_return run->count;
}

Task<Result<void>> Compactor::move_compressed() {
  for (const auto& [entry, uses] : compressed_uses_) {
    auto moved = co_await repack(entry, uses);
    if (!moved) {
      co_return std::unexpected(moved.error());
    }
    if (!*moved) {
      break;
    }
  }
  co_return Result<void>{};
}

Task<Result<bool>> Compactor::repack(std::uint64_t entry, const std::vector<Use>& uses) {
  auto room = co_await image_.keep_within_bounds();
  if (!room) {
    co_return std::unexpected(room.error());
  }
  auto& refcounts = *image_.refcounts_;
  const auto extent = geometry_.compressed_extent(entry);
  auto place = co_await refcounts.allocate_bytes(extent.bytes);
  if (!place) {
    co_return std::unexpected(place.error());
  }
  const auto first = *place >> geometry_.cluster_bits;
  const auto count = ((*place + extent.bytes - 1) >> geometry_.cluster_bits) - first + 1;
  if (*place >= extent.offset) {
    auto undone = co_await refcounts.adjust(first, count, -1);
    if (!undone) {
      co_return std::unexpected(undone.error());
    }
    co_return false;
  }
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(extent.bytes));
  const iovec vec{packed.data(), packed.size()};
  auto done = co_await image_.file_->readv(extent.offset, {&vec, 1});
  if (done) {
    done = co_await image_.file_->writev(*place, {&vec, 1});
  }
  std::uint64_t paths = 0;
  for (const auto& use : uses) {
    paths += use.paths;
  }
  if (done && paths > 1) {
    done = co_await refcounts.adjust(first, count, static_cast<std::int64_t>(paths) - 1);
  }
  if (done) {
    done = co_await relink(uses, geometry_.compressed_entry(*place, extent.bytes), 0);
  }
  for (std::uint64_t p = 0; done && p < paths; ++p) {
    image_.free_mapping_later({entry, 0}, false);
  }
  if (!done) {
    co_return std::unexpected(done.error());
  }
  ++report_.moved;
  co_return true;
}

}  // namespace whistler::qcow2
