// Compacting: the tables of the disk and of its snapshots move into holes.
#include <algorithm>

#include "block/qcow2/compact.hpp"
#include "block/qcow2/snapshots.hpp"

namespace whistler::qcow2 {

Task<Result<void>> Compactor::move_l2_tables() {
  auto& refcounts = *image_.refcounts_;
  std::map<std::uint64_t, std::uint64_t> moves;
  std::vector<std::uint8_t> buffer(static_cast<std::size_t>(geometry_.cluster_size()));
  const iovec vec{buffer.data(), buffer.size()};
  for (const auto& [offset, table] : tables_) {
    if (!beyond_goal(offset)) {
      continue;
    }
    auto run = co_await refcounts.allocate(1);
    if (!run) {
      co_return std::unexpected(run.error());
    }
    const auto place = run->first << geometry_.cluster_bits;
    if (place >= offset) {
      auto undone = co_await refcounts.adjust(run->first, 1, -1);
      if (!undone) {
        co_return undone;
      }
      break;
    }
    image_.l2_cache_->drop(place, geometry_.cluster_size());
    auto done = co_await image_.file_->readv(offset, {&vec, 1});  // settled: the file has all of it
    if (done) {
      done = co_await image_.file_->writev(place, {&vec, 1});
    }
    if (done && table.names.size() > 1) {
      done = co_await refcounts.set(run->first, table.names.size());
    }
    if (!done) {
      co_return done;
    }
    moves[offset] = place;
  }
  // Copies and counts are durable before anything names them.
  auto done = co_await settle();
  if (done && !moves.empty()) {
    done = co_await rename_tables(moves);
  }
  co_return done;
}

Task<Result<void>> Compactor::rename_tables(const std::map<std::uint64_t, std::uint64_t>& moves) {
  bool in_snapshots = false;
  for (const auto& [old, place] : moves) {
    for (const auto& name : tables_.at(old).names) {
      if (name.snapshot == kDisk) {
        image_.set_l1(name.index, (image_.l1_[name.index] & ~kOffsetMask) | place);
        continue;
      }
      auto& entry = snapshot_l1_[name.snapshot][name.index];
      entry = (entry & ~kOffsetMask) | place;
      std::uint8_t raw[8];
      store_be<std::uint64_t>(raw, entry);
      const iovec vec{raw, sizeof raw};
      auto written = co_await image_.file_->writev(snapshots_[name.snapshot].l1_table_offset + name.index * 8,
                                                   {&vec, 1});
      if (!written) {
        co_return written;
      }
      in_snapshots = true;
    }
  }
  if (in_snapshots) {
    auto flushed = co_await image_.barrier();
    if (!flushed) {
      co_return flushed;
    }
  }
  for (const auto& [old, place] : moves) {
    const auto& table = tables_.at(old);
    if (table.metadata) {
      image_.refcounts_->add_metadata(place >> geometry_.cluster_bits);
      image_.refcounts_->remove_metadata(old >> geometry_.cluster_bits);
    }
    image_.l2_cache_->drop(old, geometry_.cluster_size());
    for (std::size_t i = 0; i < table.names.size(); ++i) {
      image_.free_later(old >> geometry_.cluster_bits, 1, true);
    }
    ++report_.moved;
  }
  auto done = co_await settle();
  co_return done;
}

/// Whether `count` free clusters lie side by side below cluster `limit`.
Task<Result<bool>> Compactor::row_below(std::uint64_t count, std::uint64_t limit) {
  std::uint64_t length = 0;
  for (std::uint64_t cluster = 0; cluster < limit && length < count; ++cluster) {
    if (!image_.refcounts_->covers(cluster) || image_.refcounts_->is_metadata(cluster)) {
      length = 0;
      continue;
    }
    auto uses = co_await image_.refcounts_->get(cluster);
    if (!uses) {
      co_return std::unexpected(uses.error());
    }
    length = *uses == 0 ? length + 1 : 0;
  }
  co_return length >= count;
}

Task<Result<void>> Compactor::move_l1_tables() {
  const auto& header = image_.header_;
  const auto first = header.l1_table_offset >> geometry_.cluster_bits;
  const auto count = geometry_.clusters_for(image_.l1_.size() * 8);
  if (count != 0 && first + count > goal_) {
    auto fits = co_await row_below(count, first);
    if (!fits) {
      co_return std::unexpected(fits.error());
    }
    if (*fits) {
      auto moved = co_await image_.move_l1(image_.l1_.size());
      if (!moved) {
        co_return moved;
      }
      ++report_.moved;
    }
  }
  if (snapshots_.empty()) {
    co_return Result<void>{};
  }
  Snapshots writer(image_);
  struct Old {
    std::uint64_t first;
    std::uint64_t count;
  };
  std::vector<Old> freed;
  auto list = snapshots_;
  const auto table_first = header.snapshots_offset >> geometry_.cluster_bits;
  const auto table_count = geometry_.clusters_for(encode_snapshot_table(list).size());
  auto table_fits = co_await row_below(table_count, std::max(table_first, goal_));
  if (!table_fits || !*table_fits) {
    co_return table_fits ? Result<void>{} : std::unexpected(table_fits.error());
  }
  for (std::size_t s = 0; s < list.size(); ++s) {
    const Old old{list[s].l1_table_offset >> geometry_.cluster_bits,
                  geometry_.clusters_for(std::uint64_t{list[s].l1_size} * 8)};
    if (old.count == 0 || old.first + old.count <= goal_) {
      continue;
    }
    auto fits = co_await row_below(old.count + table_count, old.first);
    if (!fits) {
      co_return std::unexpected(fits.error());
    }
    if (!*fits) {
      continue;
    }
    auto place = co_await writer.write_l1(snapshot_l1_[s]);
    if (!place) {
      co_return std::unexpected(place.error());
    }
    list[s].l1_table_offset = *place;
    freed.push_back(old);
  }
  if (freed.empty() && table_first + table_count <= goal_) {
    co_return Result<void>{};
  }
  auto done = co_await writer.replace_table(list);
  co_await image_.load_snapshot_places();
  for (const auto& old : freed) {
    if (done) {
      done = co_await image_.refcounts_->adjust(old.first, old.count, -1);
    }
  }
  report_.moved += freed.size() + 1;
  snapshots_ = std::move(list);
  co_return done;
}

}  // namespace whistler::qcow2
