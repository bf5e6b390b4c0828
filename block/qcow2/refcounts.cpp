#include "block/qcow2/refcounts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace whistler::qcow2 {

Refcounts::Refcounts(BlockDevice& file, Header& header, std::uint32_t slice_bytes, std::uint64_t cache_limit)
    : file_(file),
      header_(header),
      geometry_(header.geometry()),
      cache_(file, "refcount block", slice_bytes, cache_limit, cache_limit / 2) {
  never_used_ = geometry_.clusters_for(file.size());
}

std::unexpected<Error> Refcounts::corrupt(const std::string& reason) const {
  return std::unexpected(Error{ErrorCode::kCorrupt, EIO, fmt::format("{}: qcow2: {}", file_.name(), reason)});
}

Task<Result<void>> Refcounts::load(bool tolerate) {
  const auto bytes = std::uint64_t{header_.refcount_table_clusters} << geometry_.cluster_bits;
  std::vector<std::uint8_t> raw(static_cast<std::size_t>(bytes));
  const iovec vec{raw.data(), raw.size()};
  auto read = co_await file_.readv(header_.refcount_table_offset, {&vec, 1});
  if (!read) {
    co_return std::unexpected(read.error().within("qcow2 refcount table"));
  }
  table_.resize(raw.size() / 8);
  add_metadata(0);
  add_metadata(header_.refcount_table_offset >> geometry_.cluster_bits, header_.refcount_table_clusters);
  for (std::size_t i = 0; i < table_.size(); ++i) {
    table_[i] = load_be<std::uint64_t>(&raw[i * 8]);
    const auto offset = table_[i];
    if (offset == 0) {
      continue;
    }
    if (geometry_.in_cluster(offset) != 0 || offset > kMaxHostOffset || offset >= file_.size()) {
      if (tolerate) {
        table_[i] = 0;
        damaged_ = true;
        continue;
      }
      co_return corrupt(
          fmt::format("refcount table entry {} names a block at offset {:#x}, which is not at a cluster "
                      "boundary within the file",
                      i, offset));
    }
    add_metadata(offset >> geometry_.cluster_bits);
  }
  co_return Result<void>{};
}

void Refcounts::add_metadata(std::uint64_t first, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    metadata_.insert(first + i);
  }
}

void Refcounts::remove_metadata(std::uint64_t first, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    metadata_.erase(first + i);
  }
}

std::uint64_t Refcounts::used_blocks() const {
  const auto last =
      std::find_if(table_.rbegin(), table_.rend(), [](std::uint64_t entry) { return entry != 0; });
  return static_cast<std::uint64_t>(table_.rend() - last);
}

Task<Result<SliceCache::Pin>> Refcounts::slice_of(std::uint64_t cluster) {
  const auto block = table_[cluster >> geometry_.refcount_block_bits()];
  const auto index = cluster & (geometry_.refcounts_per_block() - 1);
  const auto byte = index << geometry_.refcount_order >> 3;
  return cache_.get(block + align_down(byte, cache_.slice_bytes()));
}

void Refcounts::note_used(ClusterRun& run) {
  run.fresh = run.first >= never_used_;
  never_used_ = std::max(never_used_, run.first + run.count);
}

Result<ClusterRun> Refcounts::take_run(SliceCache::Pin& pin, std::uint64_t cluster, std::uint64_t end,
                                       std::uint64_t wanted, const char* purpose) {
  const auto order = geometry_.refcount_order;
  const auto per_slice = std::uint64_t{cache_.slice_bytes()} * 8 >> order;
  const auto base = align_down(cluster, per_slice);
  while (cluster < end && load_refcount(pin.data(), cluster - base, order) != 0) {
    ++cluster;
  }
  ClusterRun run{.first = cluster};
  while (cluster < end && run.count < wanted && load_refcount(pin.data(), cluster - base, order) == 0) {
    if (is_metadata(cluster)) {
      if (cluster == 0 && purpose != nullptr) {
        return corrupt(fmt::format("Preventing invalid allocation of {} at offset 0", purpose));
      }
      return corrupt(fmt::format("Preventing invalid write on metadata (overlaps with {})",
                                 describe_ ? describe_(cluster) : "a table"));
    }
    ++cluster;
    ++run.count;
  }
  for (std::uint64_t i = 0; i < run.count; ++i) {
    store_refcount(pin.data(), run.first - base + i, order, 1);
  }
  if (run.count != 0) {
    pin.mark_dirty();
    note_used(run);
  }
  return run;
}

Task<Result<ClusterRun>> Refcounts::allocate(std::uint64_t wanted, const char* purpose) {
  file_.debug_event(DebugEvent::kClusterAlloc);
  file_.debug_event(DebugEvent::kRefblockAlloc);  // QEMU's, of looking for the block: one may be there
  const auto guard = co_await mutex_.lock();
  if (unsettled_) {
    auto settled = co_await settle();
    if (!settled) {
      co_return std::unexpected(settled.error());
    }
  }
  const auto per_slice = counts_per_slice();
  auto cluster = hint_;
  auto hint_seen = hint_;  // a cluster freed while this waits moves the hint
  for (;;) {
    const auto block = cluster >> geometry_.refcount_block_bits();
    if (!covers(cluster)) {
      if (block < used_blocks()) {  // a gap another program left; it is not filled
        cluster = (block + 1) << geometry_.refcount_block_bits();
        continue;
      }
      auto extended = co_await extend(0);
      if (!extended) {
        co_return std::unexpected(extended.error());
      }
      continue;
    }
    auto pin = co_await slice_of(cluster);
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    const auto end = align_down(cluster, per_slice) + per_slice;
    auto run = take_run(*pin, cluster, end, wanted, purpose);
    if (!run || run->count != 0) {
      if (run && hint_ == hint_seen) {
        hint_ = run->first + run->count;
      }
      co_return run;
    }
    if (hint_ == hint_seen) {
      hint_ = end;
    }
    cluster = hint_seen = hint_;
  }
}

Task<Result<ClusterRun>> Refcounts::allocate_row(std::uint64_t count) {
  if (count == 1) {
    auto run = co_await allocate(1);
    co_return run;
  }
  const auto guard = co_await mutex_.lock();
  if (unsettled_) {
    auto settled = co_await settle();
    if (!settled) {
      co_return std::unexpected(settled.error());
    }
  }
  // A row within what the blocks cover, or a new piece of file.
  const auto covered = used_blocks() << geometry_.refcount_block_bits();
  std::uint64_t first = hint_;
  std::uint64_t length = 0;
  for (auto cluster = hint_; cluster < covered && length < count; ++cluster) {
    const auto block = cluster >> geometry_.refcount_block_bits();
    if (table_[block] == 0) {
      cluster = ((block + 1) << geometry_.refcount_block_bits()) - 1;
      first = cluster + 1;
      length = 0;
      continue;
    }
    auto value = co_await get(cluster);
    if (!value) {
      co_return std::unexpected(value.error());
    }
    if (*value == 0 && !is_metadata(cluster)) {
      ++length;
    } else {
      first = cluster + 1;
      length = 0;
    }
  }
  ClusterRun run{.first = first, .count = count};
  if (length < count) {
    auto appended = co_await extend(count);
    if (!appended) {
      co_return std::unexpected(appended.error());
    }
    run.first = *appended;
    run.fresh = false;
    co_return run;
  }
  auto counted = co_await adjust(run.first, count, 1);
  if (!counted) {
    co_return std::unexpected(counted.error());
  }
  note_used(run);
  co_return run;
}

Task<Result<std::uint64_t>> Refcounts::allocate_bytes(std::uint64_t bytes) {
  file_.debug_event(DebugEvent::kClusterAllocBytes);
  const auto guard = co_await tail_mutex_.lock();
  const auto cluster_size = geometry_.cluster_size();
  const auto room = tail_ == 0 ? 0 : cluster_size - geometry_.in_cluster(tail_);
  const auto tail_cluster = tail_ >> geometry_.cluster_bits;
  bool can_share = room != 0;
  if (can_share) {
    auto uses = co_await get(tail_cluster);
    if (!uses) {
      co_return std::unexpected(uses.error());
    }
    can_share = *uses < geometry_.max_refcount();
  }
  std::uint64_t place = tail_;
  if (can_share && room >= bytes) {
    auto counted = co_await adjust(tail_cluster, 1, 1);
    if (!counted) {
      co_return std::unexpected(counted.error());
    }
  } else {
    auto run = co_await allocate(1, "compressed cluster");
    if (!run) {
      co_return std::unexpected(run.error());
    }
    // Where the new cluster follows, the data begins in the old one; the count held for filling that becomes
    // the data's own.
    if (!can_share || run->first != tail_cluster + 1) {
      place = run->first << geometry_.cluster_bits;
      auto released = co_await release_tail();
      static_cast<void>(released);  // a leak at worst
    }
    tail_ = 0;
    if (geometry_.max_refcount() > 1 && geometry_.in_cluster(place + bytes) != 0) {
      auto held = co_await adjust(run->first, 1, 1);
      if (!held) {
        co_return std::unexpected(held.error());
      }
      tail_ = place + bytes;
    }
    co_return place;
  }
  tail_ = place + bytes;
  if (geometry_.in_cluster(tail_) == 0) {
    tail_ = place;  // full: its cluster is found from an offset within
    auto released = co_await release_tail();
    static_cast<void>(released);
  }
  co_return place;
}

Task<Result<void>> Refcounts::release_tail() {
  if (tail_ == 0) {
    co_return Result<void>{};
  }
  const auto cluster = std::exchange(tail_, 0) >> geometry_.cluster_bits;
  auto released = co_await adjust(cluster, 1, -1);
  co_return released;
}

bool Refcounts::covers(std::uint64_t first, std::uint64_t count) const {
  const auto block_of = [&](std::uint64_t cluster) { return cluster >> geometry_.refcount_block_bits(); };
  for (auto block = block_of(first); block <= block_of(first + count - 1); ++block) {
    if (block >= table_.size() || table_[block] == 0) {
      return false;
    }
  }
  return true;
}

Task<Result<std::uint64_t>> Refcounts::get(std::uint64_t cluster) {
  const auto block = cluster >> geometry_.refcount_block_bits();
  if (block >= table_.size() || table_[block] == 0) {
    co_return std::uint64_t{0};
  }
  auto pin = co_await slice_of(cluster);
  if (!pin) {
    co_return std::unexpected(pin.error());
  }
  const auto per_slice = counts_per_slice();
  co_return load_refcount(pin->data(), cluster & (per_slice - 1), geometry_.refcount_order);
}

Task<Result<void>> Refcounts::adjust(std::uint64_t first, std::uint64_t count, std::int64_t delta) {
  const auto per_slice = counts_per_slice();
  const auto end = first + count;
  for (auto cluster = first; cluster < end;) {
    const auto block = cluster >> geometry_.refcount_block_bits();
    if (block >= table_.size() || table_[block] == 0) {
      co_return corrupt(fmt::format("cluster {:#x} is in use, but no refcount block covers it",
                                    cluster << geometry_.cluster_bits));
    }
    auto pin = co_await slice_of(cluster);
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    for (const auto slice_end = std::min(end, align_down(cluster, per_slice) + per_slice);
         cluster < slice_end; ++cluster) {
      const auto old = load_refcount(pin->data(), cluster & (per_slice - 1), geometry_.refcount_order);
      if (delta < 0 && old < static_cast<std::uint64_t>(-delta)) {
        co_return corrupt(fmt::format("refcount of cluster {:#x} is {}, lower than its uses",
                                      cluster << geometry_.cluster_bits, old));
      }
      if (delta > 0 && old > geometry_.max_refcount() - static_cast<std::uint64_t>(delta)) {
        co_return std::unexpected(
            Error{ErrorCode::kUnsupported, EINVAL,
                  fmt::format("{}: refcounts of {} bits cannot count more than {} uses of cluster {:#x}",
                              file_.name(), geometry_.refcount_bits(), geometry_.max_refcount(),
                              cluster << geometry_.cluster_bits)});
      }
      const auto value = old + static_cast<std::uint64_t>(delta);
      store_refcount(pin->data(), cluster & (per_slice - 1), geometry_.refcount_order, value);
      pin->mark_dirty();
      if (value == 0) {
        hint_ = std::min(hint_, cluster);
      }
    }
  }
  co_return Result<void>{};
}

bool Refcounts::covers(std::uint64_t cluster) const {
  const auto block = cluster >> geometry_.refcount_block_bits();
  return block < table_.size() && table_[block] != 0;
}

Task<Result<void>> Refcounts::set(std::uint64_t cluster, std::uint64_t count) {
  if (!covers(cluster)) {
    co_return corrupt(
        fmt::format("cluster {:#x} is covered by no refcount block", cluster << geometry_.cluster_bits));
  }
  auto pin = co_await slice_of(cluster);
  if (!pin) {
    co_return std::unexpected(pin.error());
  }
  const auto per_slice = counts_per_slice();
  store_refcount(pin->data(), cluster & (per_slice - 1), geometry_.refcount_order, count);
  pin->mark_dirty();
  if (count == 0) {
    hint_ = std::min(hint_, cluster);
  }
  co_return Result<void>{};
}

Task<Result<void>> Refcounts::rebuild(std::uint64_t end, std::function<std::uint64_t(std::uint64_t)> uses) {
  const auto first = std::max(end, geometry_.clusters_for(file_.size()));
  std::uint64_t blocks = 1;
  std::uint64_t table_clusters = 1;
  for (;;) {
    const auto total = first + blocks + table_clusters;
    const auto needed_blocks =
        (total + geometry_.refcounts_per_block() - 1) >> geometry_.refcount_block_bits();
    const auto needed_clusters = geometry_.clusters_for(needed_blocks * 8);
    if (needed_blocks <= blocks && needed_clusters <= table_clusters) {
      break;
    }
    blocks = std::max(blocks, needed_blocks);
    table_clusters = std::max(table_clusters, needed_clusters);
  }
  std::vector<std::uint8_t> block(static_cast<std::size_t>(geometry_.cluster_size()));
  std::vector<std::uint64_t> table(static_cast<std::size_t>((table_clusters << geometry_.cluster_bits) / 8));
  for (std::uint64_t b = 0; b < blocks; ++b) {
    table[b] = (first + b) << geometry_.cluster_bits;
    for (std::uint64_t i = 0; i < geometry_.refcounts_per_block(); ++i) {
      const auto cluster = (b << geometry_.refcount_block_bits()) + i;
      const std::uint64_t own = cluster >= first && cluster < first + blocks + table_clusters ? 1 : 0;
      const auto value = cluster < end ? uses(cluster) : own;
      if (value > geometry_.max_refcount()) {
        co_return fail(
            ErrorCode::kUnsupported,
            fmt::format("{}: cluster {:#x} has {} uses, more than refcounts of {} bits can count",
                        file_.name(), cluster << geometry_.cluster_bits, value, geometry_.refcount_bits()));
      }
      store_refcount(block.data(), i, geometry_.refcount_order, value);
    }
    const iovec vec{block.data(), block.size()};
    auto written = co_await file_.writev(table[b], {&vec, 1});
    if (!written) {
      co_return written;
    }
  }
  auto done = co_await write_table((first + blocks) << geometry_.cluster_bits, table, 0, table.size());
  if (done) {
    done = co_await file_.flush();
  }
  const auto old_offset = header_.refcount_table_offset;
  const auto old_clusters = header_.refcount_table_clusters;
  if (done) {
    done = co_await switch_table((first + blocks) << geometry_.cluster_bits, table_clusters);
  }
  if (!done) {
    co_return done;
  }
  remove_metadata(old_offset >> geometry_.cluster_bits, old_clusters);
  for (const auto old : table_) {
    if (old != 0) {
      cache_.drop(old, geometry_.cluster_size());
      remove_metadata(old >> geometry_.cluster_bits);
    }
  }
  table_ = std::move(table);
  add_metadata(first, blocks + table_clusters);
  never_used_ = std::max(never_used_, first + blocks + table_clusters);
  hint_ = 0;
  damaged_ = false;
  co_return done;
}

Task<Result<void>> Refcounts::switch_table(std::uint64_t offset, std::uint64_t clusters) {
  const auto old_offset = header_.refcount_table_offset;
  const auto old_clusters = header_.refcount_table_clusters;
  header_.refcount_table_offset = offset;
  header_.refcount_table_clusters = static_cast<std::uint32_t>(clusters);
  unsettled_ = true;
  auto done = co_await write_header();
  if (done) {
    done = co_await file_.flush();  // barrier: the old table is free only when the header no longer names it
  }
  if (done) {
    unsettled_ = false;
  } else {
    header_.refcount_table_offset = old_offset;
    header_.refcount_table_clusters = old_clusters;
  }
  co_return done;
}

Task<Result<std::uint64_t>> Refcounts::extend(std::uint64_t extra) {
  const auto plan = plan_refcount_growth(geometry_, used_blocks(), table_.size(), extra);
  const auto end = plan.extra_first() + extra;
  if (end > kMaxHostOffset >> geometry_.cluster_bits ||
      plan.table_clusters << geometry_.cluster_bits > kMaxRefcountTableBytes) {
    co_return fail(ErrorCode::kNoSpace,
                   fmt::format("{}: a qcow2 file with these cluster and refcount sizes cannot grow further",
                               file_.name()));
  }
  for (auto cluster = plan.first_cluster; cluster < end; ++cluster) {
    if (is_metadata(cluster)) {
      co_return corrupt(fmt::format("cluster {:#x} holds a table, but no refcount block covers it",
                                    cluster << geometry_.cluster_bits));
    }
  }
  auto done = co_await extend_planned(plan, extra);
  if (!done) {
    co_return std::unexpected(done.error());
  }
  never_used_ = std::max(never_used_, end);
  co_return plan.extra_first();
}

Task<Result<void>> Refcounts::extend_planned(RefcountGrowth plan, std::uint64_t extra) {
  file_.debug_event(DebugEvent::kRefblockAlloc);
  // Blocks first: they count themselves, the table and the extra clusters.
  std::vector<std::uint8_t> blocks(static_cast<std::size_t>(plan.blocks << geometry_.cluster_bits));
  const auto counted = plan.blocks + plan.table_clusters + extra;
  for (std::uint64_t i = 0; i < counted; ++i) {
    store_refcount(blocks.data(), i, geometry_.refcount_order, 1);
  }
  const iovec vec{blocks.data(), blocks.size()};
  file_.debug_event(plan.table_clusters == 0 ? DebugEvent::kRefblockAllocWrite
                                             : DebugEvent::kRefblockAllocWriteBlocks);
  auto done = co_await file_.writev(plan.first_cluster << geometry_.cluster_bits, {&vec, 1});
  if (!done) {
    co_return done;
  }
  auto table = table_;
  if (plan.table_clusters != 0) {
    table.resize(static_cast<std::size_t>((plan.table_clusters << geometry_.cluster_bits) / 8));
  }
  for (std::uint64_t i = 0; i < plan.blocks; ++i) {
    table[plan.first_block + i] = (plan.first_cluster + i) << geometry_.cluster_bits;
  }
  cache_.drop(plan.first_cluster << geometry_.cluster_bits, plan.blocks << geometry_.cluster_bits);
  if (plan.table_clusters == 0) {
    // Barrier: a table entry never names a block that is not there.
    done = co_await file_.flush();
    if (!done) {
      co_return done;
    }
    unsettled_ = true;
    file_.debug_event(DebugEvent::kRefblockAllocHookup);
    done = co_await write_table(header_.refcount_table_offset, table, plan.first_block,
                                plan.first_block + plan.blocks);
    if (!done) {
      co_return done;
    }
    unsettled_ = false;
    table_ = std::move(table);
    add_metadata(plan.first_cluster, plan.blocks);
    co_return Result<void>{};
  }
  file_.debug_event(DebugEvent::kRefblockAllocWriteTable);
  done = co_await write_table(plan.table_first() << geometry_.cluster_bits, table, 0, table.size());
  if (!done) {
    co_return done;
  }
  // Barrier: the header never names a table that is not there.
  done = co_await file_.flush();
  if (!done) {
    co_return done;
  }
  const auto old_offset = header_.refcount_table_offset;
  const auto old_clusters = header_.refcount_table_clusters;
  file_.debug_event(DebugEvent::kRefblockAllocSwitchTable);
  done = co_await switch_table(plan.table_first() << geometry_.cluster_bits, plan.table_clusters);
  if (!done) {
    co_return done;
  }
  table_ = std::move(table);
  add_metadata(plan.first_cluster, plan.blocks + plan.table_clusters);
  remove_metadata(old_offset >> geometry_.cluster_bits, old_clusters);
  done = co_await adjust(old_offset >> geometry_.cluster_bits, old_clusters, -1);
  co_return done;
}

Task<Result<void>> Refcounts::write_table(std::uint64_t offset, const std::vector<std::uint64_t>& table,
                                          std::uint64_t first, std::uint64_t end) {
  const auto begin = align_down(first * 8, kSector);
  const auto bytes = std::min<std::uint64_t>(align_up(end * 8, kSector), table.size() * 8) - begin;
  std::vector<std::uint8_t> raw(static_cast<std::size_t>(bytes));
  for (std::size_t i = 0; i < raw.size() / 8; ++i) {
    store_be<std::uint64_t>(&raw[i * 8], table[static_cast<std::size_t>(begin / 8) + i]);
  }
  const iovec vec{raw.data(), raw.size()};
  auto written = co_await file_.writev(offset + begin, {&vec, 1});
  co_return written;
}

Task<Result<void>> Refcounts::write_header() {
  const auto guard = co_await header_mutex_.lock();
  auto fields = encode_fields(header_);
  const iovec vec{&fields, std::min<std::size_t>(sizeof fields, header_.header_length)};
  auto written = co_await file_.writev(0, {&vec, 1});
  co_return written;
}

Task<Result<void>> Refcounts::settle() {
  auto done = co_await write_table(header_.refcount_table_offset, table_, 0, table_.size());
  if (done) {
    done = co_await write_header();
  }
  if (done) {
    done = co_await file_.flush();
  }
  unsettled_ = !done.has_value();
  co_return done;
}

}  // namespace whistler::qcow2
