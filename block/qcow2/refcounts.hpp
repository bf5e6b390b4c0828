// Who owns the clusters of the file: the refcount table and blocks, and the allocator on top of them.
//
// Order (the whole safety of the image rests on it):
//  - A count may go up in memory at any time, but must be durable before anything on disk refers to the
//  cluster; the owner's
//    writeback sees to that. A count goes down in memory only once nothing on disk refers to the cluster any
//    more. So the blocks in memory may be written whenever it suits: the worst a crash leaves is a leak.
//  - New refcount blocks and a moved table are made durable here, before they are used.
#pragma once

#include <functional>
#include <unordered_set>
#include <vector>

#include "base/async.hpp"
#include "block/qcow2/header.hpp"
#include "block/qcow2/slice_cache.hpp"

namespace whistler::qcow2 {

/// A row of neighbouring clusters, counted from the beginning of the file.
struct ClusterRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  /// Never written since the file was extended to there: reads as zeroes.
  bool fresh = false;
};

class Refcounts {
 public:
  /// `file` and `header` belong to the image and must outlive this; the table's place in `header` is kept up
  /// to date.
  Refcounts(BlockDevice& file, Header& header, std::uint32_t slice_bytes, std::uint64_t cache_limit);

  /// Reads the refcount table and checks its entries. With `tolerate`, for repair, impossible entries are
  /// left out and noted.
  [[nodiscard]] Task<Result<void>> load(bool tolerate = false);
  [[nodiscard]] bool damaged() const { return damaged_; }
  /// Clusters from here on have never been written, and lie behind the file's end.
  [[nodiscard]] std::uint64_t never_used() const { return never_used_; }

  /// Tells what structure of the image lies in a cluster, for messages.
  void set_describe(std::function<std::string(std::uint64_t)> describe) { describe_ = std::move(describe); }
  /// Takes 1 to `wanted` free neighbouring clusters and counts them once. `purpose`: what they are for, if
  /// not for data.
  [[nodiscard]] Task<Result<ClusterRun>> allocate(std::uint64_t wanted, const char* purpose = nullptr);
  /// Takes exactly `count` neighbouring clusters: for tables.
  [[nodiscard]] Task<Result<ClusterRun>> allocate_row(std::uint64_t count);
  /// Takes room for a compressed cluster of `bytes` bytes, at most a cluster, packed behind the last one
  /// where it fits. Every cluster it touches is counted once for it. Gives the file offset.
  [[nodiscard]] Task<Result<std::uint64_t>> allocate_bytes(std::uint64_t bytes);
  /// Lets go of the cluster that allocate_bytes() still fills: before closing or checking.
  [[nodiscard]] Task<Result<void>> release_tail();
  /// Adds `delta` to the counts of [first, first + count). An error (kCorrupt: below zero; kUnsupported:
  /// above what the width holds) leaves those before the offending one changed.
  [[nodiscard]] Task<Result<void>> adjust(std::uint64_t first, std::uint64_t count, std::int64_t delta);
  /// Whether there are refcount blocks for all of [first, first + count), which adjust() needs.
  [[nodiscard]] bool covers(std::uint64_t first, std::uint64_t count) const;
  /// One cluster's count.
  [[nodiscard]] Task<Result<std::uint64_t>> get(std::uint64_t cluster);
  /// The slice with the count of `cluster`, which must be covered; it holds counts_per_slice() of them, the
  /// first for a multiple of that.
  [[nodiscard]] Task<Result<SliceCache::Pin>> slice_of(std::uint64_t cluster);
  [[nodiscard]] std::uint64_t counts_per_slice() const {
    return std::uint64_t{cache_.slice_bytes()} * 8 >> geometry_.refcount_order;
  }
  /// Sets a count, whatever it was: for repair. The cluster must be covered by a block.
  [[nodiscard]] Task<Result<void>> set(std::uint64_t cluster, std::uint64_t count);
  [[nodiscard]] bool covers(std::uint64_t cluster) const;
  /// Makes blocks and table anew, behind `end` clusters and the file's end, with the counts that `uses` gives
  /// for clusters below `end`: for repair. The old ones are not freed: `uses` knows them as unused.
  [[nodiscard]] Task<Result<void>> rebuild(std::uint64_t end,
                                           std::function<std::uint64_t(std::uint64_t)> uses);

  /// Moves blocks and table that lie at cluster `goal` or behind it into holes before them, as far as there
  /// are any, and drops the last blocks if they count nothing. All counts must have been written.
  [[nodiscard]] Task<Result<void>> move_tables_below(std::uint64_t goal);

  /// Clusters that hold tables: never handed out, never written as data. The image adds its L1 and L2 tables.
  void add_metadata(std::uint64_t first, std::uint64_t count = 1);
  void remove_metadata(std::uint64_t first, std::uint64_t count = 1);
  [[nodiscard]] bool is_metadata(std::uint64_t cluster) const { return metadata_.contains(cluster); }

  [[nodiscard]] SliceCache& cache() { return cache_; }
  /// One write of the header at a time, each of what memory says once its turn has come.
  [[nodiscard]] AsyncMutex& header_mutex() { return header_mutex_; }
  [[nodiscard]] const std::vector<std::uint64_t>& table() const { return table_; }

 private:
  [[nodiscard]] std::uint64_t used_blocks() const;
  /// Appends refcount blocks, a bigger table if need be, and `extra` clusters behind all that is covered;
  /// gives the first of those.
  [[nodiscard]] Task<Result<std::uint64_t>> extend(std::uint64_t extra);
  [[nodiscard]] Task<Result<void>> extend_planned(RefcountGrowth plan, std::uint64_t extra);
  /// After a failed write of table or header it is unknown which is on disk; writes again what memory says.
  [[nodiscard]] Task<Result<void>> settle();
  /// Writes the sectors of `table`, which lies at `offset`, that hold the entries [first, end).
  [[nodiscard]] Task<Result<void>> write_table(std::uint64_t offset, const std::vector<std::uint64_t>& table,
                                               std::uint64_t first, std::uint64_t end);
  [[nodiscard]] Task<Result<void>> write_header();
  // refcounts_move.cpp
  [[nodiscard]] Task<Result<void>> write_counts();
  [[nodiscard]] Task<Result<void>> write_entry(std::uint64_t block, std::uint64_t offset);
  [[nodiscard]] Task<Result<bool>> counts_only_itself(std::uint64_t block);
  [[nodiscard]] Task<Result<void>> drop_last_blocks();
  [[nodiscard]] Task<Result<bool>> move_block(std::uint64_t block);
  [[nodiscard]] Task<Result<void>> move_table();
  /// Lets the header name a table that is durable, and makes that durable too. On failure all is as before,
  /// and unsettled.
  [[nodiscard]] Task<Result<void>> switch_table(std::uint64_t offset, std::uint64_t clusters);
  [[nodiscard]] Result<ClusterRun> take_run(SliceCache::Pin& pin, std::uint64_t cluster, std::uint64_t end,
                                            std::uint64_t wanted, const char* purpose);
  void note_used(ClusterRun& run);
  [[nodiscard]] std::unexpected<Error> corrupt(const std::string& reason) const;

  BlockDevice& file_;
  Header& header_;
  Geometry geometry_;
  SliceCache cache_;
  AsyncMutex mutex_;  ///< one allocation at a time
  AsyncMutex header_mutex_;
  AsyncMutex tail_mutex_;  ///< one allocation of bytes at a time
  /// Where the next compressed cluster may begin; 0 if nowhere. Its cluster is counted once for that, so that
  /// it cannot be freed and handed out while it is being filled.
  std::uint64_t tail_ = 0;
  std::function<std::string(std::uint64_t)> describe_;
  std::vector<std::uint64_t> table_;
  std::unordered_set<std::uint64_t> metadata_;
  std::uint64_t hint_ = 0;  ///< no free cluster lies below
  std::uint64_t never_used_ = 0;
  bool unsettled_ = false;
  bool damaged_ = false;
};

}  // namespace whistler::qcow2
