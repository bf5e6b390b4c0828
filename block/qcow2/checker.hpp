// One run of a check: check.cpp counts what is in use, check_repair.cpp compares that and repairs.
#pragma once

#include <fmt/format.h>

#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "block/qcow2/check.hpp"
#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshot_table.hpp"

namespace whistler::qcow2 {

/// Over an image that nobody else uses.
class Checker {
 public:
  Checker(Image& image, Repair repair) : image_(image), geometry_(image.geometry_), repair_(repair) {}

  Task<Result<CheckReport>> run();

 private:
  /// Uses are counted in memory, two bytes a cluster.
  using Count = std::uint16_t;

  template <typename... Args>
  void note(std::uint64_t& counter, fmt::format_string<Args...> format, Args&&... args) {
    ++counter;
    say(fmt::format(format, std::forward<Args>(args)...));
  }
  void say(std::string message) {
    if (!quiet_ && report_.messages.size() < CheckReport::kMaxMessages) {
      report_.messages.push_back(std::move(message));
    }
  }
  [[nodiscard]] bool fix(Repair wanted) const { return repair_ >= wanted; }
  [[nodiscard]] Count uses(std::uint64_t cluster) const {
    return cluster < counts_.size() ? counts_[static_cast<std::size_t>(cluster)] : Count{0};
  }
  Task<Result<std::vector<std::uint8_t>>> read(std::uint64_t offset, std::uint64_t bytes);

  // check.cpp
  Task<Result<void>> prepare();
  /// Counts all there is, anew.
  Task<Result<void>> count_all();
  void count(std::uint64_t offset, std::uint64_t bytes);
  /// One more use of a cluster of the file.
  void count_use(std::uint64_t cluster) {
    auto& counter = counts_[static_cast<std::size_t>(cluster)];
    if (counter >= max_refcount_) {
      note_overflow(cluster);
    } else if (counter != std::numeric_limits<Count>::max()) {
      ++counter;
    }
  }
  void note_overflow(std::uint64_t cluster);
  Task<Result<void>> count_refcount_structure();
  Task<Result<void>> drop_block(std::uint64_t index);
  Task<Result<void>> load_snapshots();
  Task<Result<void>> repair_snapshot_table();
  Task<Result<void>> count_snapshots();
  Task<Result<void>> count_bitmaps();
  Task<Result<void>> count_l1(std::span<const std::uint64_t> l1, bool active);
  Task<Result<void>> count_l2(std::uint64_t offset, std::uint64_t guest, bool active);
  /// True if the entry is to become one without a host cluster.
  bool count_entry(L2Entry entry, std::uint64_t guest, bool active);

  // check_repair.cpp
  Task<Result<void>> check_refcounts();
  Task<Result<void>> rebuild();
  Task<Result<void>> compare_refcounts(Repair repair);
  std::uint64_t skip_equal(const std::uint8_t* slice, std::uint64_t first, std::uint64_t cluster,
                           std::uint64_t last);
  bool compare_refcount(std::uint64_t cluster, std::uint64_t stored, Repair repair);
  Task<Result<void>> check_copied_flags();
  [[nodiscard]] std::uint64_t skip_agreeing(const std::vector<std::uint8_t>& table, std::uint64_t index,
                                            const std::uint8_t* counts, std::uint64_t slice) const;
  Task<Result<void>> check_copied_l2(std::uint64_t l1_index, bool repair);

  Image& image_;
  Geometry geometry_;
  Repair repair_;
  std::uint64_t max_refcount_ = geometry_.max_refcount();
  CheckReport report_;
  std::vector<Count> counts_;
  std::uint64_t next_host_ = 0;
  SnapshotTable snapshots_;
  std::uint64_t snapshot_faults_ = 0;  ///< of the table itself; all gone once it is written anew
  bool quiet_ = false;
  /// The refcounts cannot be set right one by one.
  bool needs_rebuild_ = false;
};

}  // namespace whistler::qcow2
