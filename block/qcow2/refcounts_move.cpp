// Refcount blocks and the refcount table move into holes, and blocks that count nothing go.
//
// Each step is durable before the next: counts, the copy, the entry that names it; only then is the old place
// free.
#include "block/qcow2/refcounts.hpp"

namespace whistler::qcow2 {

/// Writes the counts in memory, durably.
Task<Result<void>> Refcounts::write_counts() {
  auto dirty = cache_.take_dirty();
  auto done = co_await write_slices(file_, dirty);
  if (done) {
    done = co_await file_.flush();
  }
  co_return done;
}

/// Lets entry `block` of the table say `offset`, durably, on disk and then in memory.
Task<Result<void>> Refcounts::write_entry(std::uint64_t block, std::uint64_t offset) {
  auto table = table_;
  table[block] = offset;
  unsettled_ = true;
  auto done = co_await write_table(header_.refcount_table_offset, table, block, block + 1);
  if (done) {
    done = co_await file_.flush();
  }
  if (done) {
    unsettled_ = false;
    table_ = std::move(table);
  }
  co_return done;
}

Task<Result<bool>> Refcounts::counts_only_itself(std::uint64_t block) {
  const auto first = block << geometry_.refcount_block_bits();
  const auto own = table_[block] >> geometry_.cluster_bits;
  for (std::uint64_t i = 0; i < geometry_.refcounts_per_block(); i += counts_per_slice()) {
    auto pin = co_await slice_of(first + i);
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    for (std::uint64_t j = 0; j < counts_per_slice(); ++j) {
      if (load_refcount(pin->data(), j, geometry_.refcount_order) != 0 && first + i + j != own) {
        co_return false;
      }
    }
  }
  co_return true;
}

Task<Result<void>> Refcounts::drop_last_blocks() {
  for (auto block = used_blocks(); block-- > 1;) {
    if (table_[block] == 0) {
      continue;
    }
    auto empty = co_await counts_only_itself(block);
    if (!empty) {
      co_return std::unexpected(empty.error());
    }
    if (!*empty) {
      break;
    }
    const auto place = table_[block];
    const auto cluster = place >> geometry_.cluster_bits;
    auto done = co_await write_entry(block, 0);
    if (!done) {
      co_return done;
    }
    cache_.drop(place, geometry_.cluster_size());
    remove_metadata(cluster);
    if (covers(cluster)) {  // counted by another block than itself
      done = co_await adjust(cluster, 1, -1);
      if (!done) {
        co_return done;
      }
    }
  }
  co_return Result<void>{};
}

Task<Result<bool>> Refcounts::move_block(std::uint64_t block) {
  const auto old = table_[block];
  auto run = co_await allocate(1);
  if (!run) {
    co_return std::unexpected(run.error());
  }
  const auto place = run->first << geometry_.cluster_bits;
  if (place >= old) {
    auto undone = co_await adjust(run->first, 1, -1);
    if (!undone) {
      co_return std::unexpected(undone.error());
    }
    co_return false;
  }
  auto done = co_await write_counts();
  std::vector<std::uint8_t> buffer(static_cast<std::size_t>(geometry_.cluster_size()));
  const iovec vec{buffer.data(), buffer.size()};
  if (done) {
    done = co_await file_.readv(old, {&vec, 1});
  }
  if (done) {
    done = co_await file_.writev(place, {&vec, 1});
  }
  if (done) {
    done = co_await file_.flush();
  }
  if (done) {
    done = co_await write_entry(block, place);
  }
  if (!done) {
    co_return std::unexpected(done.error());
  }
  cache_.drop(old, geometry_.cluster_size());
  cache_.drop(place, geometry_.cluster_size());
  add_metadata(run->first);
  remove_metadata(old >> geometry_.cluster_bits);
  done = co_await adjust(old >> geometry_.cluster_bits, 1, -1);
  if (!done) {
    co_return std::unexpected(done.error());
  }
  co_return true;
}

Task<Result<void>> Refcounts::move_table() {
  const auto old_first = header_.refcount_table_offset >> geometry_.cluster_bits;
  const std::uint64_t count = header_.refcount_table_clusters;
  std::uint64_t length = 0;
  for (std::uint64_t cluster = 0; cluster < old_first && length < count; ++cluster) {
    auto uses = co_await get(cluster);
    if (!uses) {
      co_return std::unexpected(uses.error());
    }
    length = *uses == 0 && covers(cluster) && !is_metadata(cluster) ? length + 1 : 0;
  }
  if (length < count) {
    co_return Result<void>{};  // no row of holes takes it
  }
  auto run = co_await allocate_row(count);
  if (!run) {
    co_return std::unexpected(run.error());
  }
  auto done = co_await write_counts();
  if (done) {
    done = co_await write_table(run->first << geometry_.cluster_bits, table_, 0, table_.size());
  }
  if (done) {
    done = co_await file_.flush();
  }
  if (done) {
    done = co_await switch_table(run->first << geometry_.cluster_bits, count);
  }
  if (!done) {
    co_return done;
  }
  add_metadata(run->first, count);
  remove_metadata(old_first, count);
  done = co_await adjust(old_first, count, -1);
  co_return done;
}

Task<Result<void>> Refcounts::move_tables_below(std::uint64_t goal) {
  auto done = co_await drop_last_blocks();
  for (std::uint64_t block = 0; done && block < used_blocks(); ++block) {
    if (table_[block] >> geometry_.cluster_bits < goal) {
      continue;  // or a gap
    }
    auto moved = co_await move_block(block);
    if (!moved) {
      done = std::unexpected(moved.error());
    } else if (!*moved) {
      break;
    }
  }
  if (done &&
      (header_.refcount_table_offset >> geometry_.cluster_bits) + header_.refcount_table_clusters > goal) {
    done = co_await move_table();
  }
  if (done) {
    done = co_await write_counts();
  }
  co_return done;
}

}  // namespace whistler::qcow2
