// Makes the file of an image as small as what it holds: rewrites in place, without a second copy.
//
//   1. Leaked clusters are freed, as check does.
//   2. Data clusters that hold nothing but zeroes are unlinked.
//   3. What lies behind the size the file could have moves into the holes before it: data, compressed or
//      not, L2 tables, L1 tables, the snapshot table, refcount blocks and the refcount table.
//   4. Refcount blocks that count nothing any more go; the end of the file is cut off; the holes that stay
//      are given back to the host.
//
// A crash at any moment leaves the disk and its snapshots as they were, and leaks at the worst: a copy is
// durable, with its counts, before anything names it, and the old place is free only when nothing durable
// names it any more. While shared clusters move, a version 3 image carries the dirty bit, so that the next
// open puts the flags right that depend on counts.
//
// Missing: clusters of persistent bitmaps and of an encryption header stay where they are.
#pragma once

#include <functional>
#include <map>
#include <unordered_map>
#include <vector>

#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshot_table.hpp"

namespace whistler::qcow2 {

struct CompactOptions {
  /// Count what would be won, and change nothing; the image may be open read-only.
  bool dry_run = false;
  /// Called with the percentage that is done.
  std::function<void(double)> progress = {};
};

struct CompactReport {
  std::uint64_t leaks = 0;  ///< clusters
  std::uint64_t zero_clusters = 0;
  std::uint64_t moved = 0;         ///< clusters
  std::uint64_t bytes_before = 0;  ///< length of the file
  std::uint64_t bytes_after = 0;   ///< the same; with dry_run: what it could be
};

/// Nothing else may use the image meanwhile. kCorrupt, nothing changed, if the image is damaged.
[[nodiscard]] Task<Result<CompactReport>> compact_image(Image& image, CompactOptions options);

class Compactor {
 public:
  Compactor(Image& image, CompactOptions options)
      : image_(image), geometry_(image.geometry_), options_(std::move(options)) {}
  [[nodiscard]] Task<Result<CompactReport>> run();

 private:
  /// An L2 table and who names it: L1 entries of the disk and of snapshots.
  struct Table {
    struct Name {
      std::size_t snapshot = 0;  ///< number, or kDisk
      std::size_t index = 0;
    };
    std::vector<Name> names;
    bool metadata = false;  ///< named by the disk itself
  };
  static constexpr std::size_t kDisk = ~std::size_t{0};
  /// One entry of an L2 table.
  struct Use {
    std::uint64_t table = 0;
    std::uint64_t index = 0;
    std::uint64_t paths = 1;  ///< how many L1 entries lead to it: so many times it is counted
  };

  [[nodiscard]] Task<Result<void>> free_leaks();
  [[nodiscard]] Task<Result<void>> drop_zeroes();
  [[nodiscard]] Task<Result<void>> drop_zeroes_of(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> move_down();
  [[nodiscard]] Task<Result<std::uint64_t>> count_used();
  [[nodiscard]] Task<Result<void>> punch_holes();
  [[nodiscard]] Task<Result<void>> settle();
  void show(double part, double whole, double from, double to) const;

  // compact_data.cpp
  [[nodiscard]] Task<Result<void>> find_tables();
  [[nodiscard]] Task<Result<void>> find_uses();
  [[nodiscard]] Task<Result<void>> find_uses_of(std::uint64_t offset, const Table& table);
  [[nodiscard]] Task<Result<void>> move_data();
  [[nodiscard]] Task<Result<std::uint64_t>> move_row(std::uint64_t first, std::uint64_t count);
  [[nodiscard]] Task<Result<void>> move_compressed();
  [[nodiscard]] Task<Result<bool>> repack(std::uint64_t entry, const std::vector<Use>& uses);
  /// Lets every use say `entry` instead; `keep`: the bits of the old value that stay.
  [[nodiscard]] Task<Result<void>> relink(const std::vector<Use>& uses, std::uint64_t value,
                                          std::uint64_t keep);

  // compact_tables.cpp
  [[nodiscard]] Task<Result<void>> move_l2_tables();
  [[nodiscard]] Task<Result<void>> rename_tables(const std::map<std::uint64_t, std::uint64_t>& moves);
  [[nodiscard]] Task<Result<void>> move_l1_tables();
  [[nodiscard]] Task<Result<bool>> row_below(std::uint64_t count, std::uint64_t limit);

  [[nodiscard]] bool beyond_goal(std::uint64_t offset) const {
    return offset >> geometry_.cluster_bits >= goal_;
  }

  Image& image_;
  Geometry geometry_;
  CompactOptions options_;
  CompactReport report_;
  std::uint64_t goal_ = 0;  ///< clusters the file could consist of
  std::vector<Snapshot> snapshots_;
  std::vector<std::vector<std::uint64_t>> snapshot_l1_;
  std::map<std::uint64_t, Table> tables_;                      ///< by file offset
  std::map<std::uint64_t, std::vector<Use>> data_uses_;        ///< by host cluster, beyond the goal
  std::map<std::uint64_t, std::vector<Use>> compressed_uses_;  ///< by entry, beyond the goal
};

}  // namespace whistler::qcow2
