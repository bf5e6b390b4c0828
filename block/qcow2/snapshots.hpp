// Internal snapshots: frozen copies of a disk inside its image, sharing clusters by reference counts.
//
// While one of these runs, guest requests wait. The image carries the dirty bit meanwhile (version 3), so
// that a crash in the middle is repaired by the next open, ours or QEMU's; after a host error the counts are
// repaired at once. The order of writes keeps data safe even where the dirty bit does not exist: counts go up
// before anything is named, and down after nothing is.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshot_table.hpp"

namespace whistler::qcow2 {

class Snapshots {
 public:
  explicit Snapshots(Image& image) : image_(image), geometry_(image.geometry_) {}

  [[nodiscard]] Task<Result<std::vector<Snapshot>>> list();
  /// Freezes the disk as it is, under `snapshot`'s name, date and clock; its id and place are chosen here.
  [[nodiscard]] Task<Result<void>> create(Snapshot snapshot);
  /// Makes the disk what it was; changes since the last snapshot are lost. `wanted`: an id or, failing that,
  /// a name. kNotFound.
  [[nodiscard]] Task<Result<void>> apply(std::string wanted);
  [[nodiscard]] Task<Result<void>> remove(std::string wanted);

 private:
  friend class Amender;
  friend class Checker;
  friend class Compactor;
  friend class Image;
  [[nodiscard]] Task<Result<std::vector<Snapshot>>> read_table();
  [[nodiscard]] Result<std::size_t> find(const std::vector<Snapshot>& list, const std::string& wanted) const;
  /// Sets or clears the dirty bit, durably.
  [[nodiscard]] Task<Result<void>> mark_dirty(bool dirty);
  /// After a failure: puts counts and flags right again, or leaves that to the next open. Gives `error` back.
  [[nodiscard]] Task<Result<void>> recover(Error error);
  [[nodiscard]] Task<Result<void>> finish(Result<void> done);

  [[nodiscard]] Task<Result<void>> do_create(Snapshot snapshot, std::vector<Snapshot> list);
  using Change = Task<Result<void>> (Snapshots::*)(std::size_t index, std::vector<Snapshot> list,
                                                   std::vector<std::uint64_t> l1);
  /// Finds the snapshot, and does `what` with it alone on the image.
  [[nodiscard]] Task<Result<void>> change(std::string wanted, Change what);
  [[nodiscard]] Task<Result<void>> do_apply(std::size_t index, std::vector<Snapshot> list,
                                            std::vector<std::uint64_t> l1);
  [[nodiscard]] Task<Result<void>> do_remove(std::size_t index, std::vector<Snapshot> list,
                                             std::vector<std::uint64_t> l1);

  /// Writes `list` to a new place, names it in the header, and frees the old place, which had `old_bytes` if
  /// the table there is not sound.
  [[nodiscard]] Task<Result<void>> replace_table(std::vector<Snapshot> list,
                                                 std::optional<std::uint64_t> old_bytes = {});
  [[nodiscard]] Task<Result<std::vector<std::uint64_t>>> read_l1(Snapshot snapshot);
  /// Writes an L1 table to a new place and gives its offset.
  [[nodiscard]] Task<Result<std::uint64_t>> write_l1(const std::vector<std::uint64_t>& l1);
  /// Adds `delta` to the count of everything the L1 table names, and what its L2 tables name.
  [[nodiscard]] Task<Result<void>> adjust_tree(std::vector<std::uint64_t> l1, std::int64_t delta);
  struct Clusters {
    std::uint64_t first;
    std::uint64_t count;
  };
  /// The host clusters that an entry of an L2 table uses.
  [[nodiscard]] std::optional<Clusters> clusters_of(const L2Entry& entry) const;
  /// Whether adjust_tree() finds a refcount for all that is named there.
  [[nodiscard]] Task<Result<void>> check_tree(std::vector<std::uint64_t> l1);
  /// Whether the disk can become that of the snapshot, which has that L1 table.
  [[nodiscard]] Task<Result<void>> check_applicable(Snapshot snapshot, std::vector<std::uint64_t> l1);
  /// Makes every "writable in place" flag of the running disk agree with the counts.
  [[nodiscard]] Task<Result<void>> update_copied_flags();
  [[nodiscard]] Task<Result<void>> update_copied_flags_of(std::uint64_t table);
  [[nodiscard]] Task<Result<std::vector<std::uint8_t>>> read(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> write(std::uint64_t offset, const std::vector<std::uint8_t>& bytes);

  Image& image_;
  Geometry geometry_;
};

}  // namespace whistler::qcow2
