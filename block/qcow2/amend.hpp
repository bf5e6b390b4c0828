// Changes what the header of an existing image promises: its version, lazy refcounts, the width of refcounts.
//
// Each step leaves an image that is whole. Nothing else may use the image meanwhile. Errors are in QEMU's
// words.
#pragma once

#include <functional>

#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshot_table.hpp"

namespace whistler::qcow2 {

class Amender {
 public:
  /// Gets how much of its work a step has done, in a unit of the step's own.
  using Report = std::function<void(std::uint64_t done, std::uint64_t work)>;
  explicit Amender(Image& image, Report report = {}) : image_(image), report_(std::move(report)) {}

  [[nodiscard]] Task<Result<void>> upgrade();
  /// To version 2: clusters that read as zeroes become what version 2 knows.
  [[nodiscard]] Task<Result<void>> downgrade();
  [[nodiscard]] Task<Result<void>> set_lazy_refcounts(bool lazy);
  [[nodiscard]] Task<Result<void>> set_refcount_bits(unsigned bits);
  /// The name of the external data file, "" for none stored; data_file_raw can only be given up.
  [[nodiscard]] Task<Result<void>> set_data_file(std::string name);
  [[nodiscard]] Task<Result<void>> drop_raw_data_file();

 private:
  void report(std::uint64_t done, std::uint64_t work) const;
  void report_pass(std::uint64_t pass, std::uint64_t cluster);
  [[nodiscard]] Task<Result<void>> write_header(Header header);
  [[nodiscard]] Task<Result<void>> expand_zero_clusters();
  [[nodiscard]] Task<Result<void>> expand_zero_range(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> clear_zero_entry(std::uint64_t offset);
  [[nodiscard]] Task<Result<std::vector<std::uint64_t>>> read_counts();

  // expand_zero.cpp
  /// One more entry of the L1 tables, the disk's and the snapshots', is expanded.
  void count_expanded();
  /// An L2 table of snapshots as it is to become.
  struct ChangedTable {
    std::uint64_t offset;
    std::int64_t sharers;  ///< how many snapshots name it
    std::vector<std::uint8_t> bytes;
    std::vector<std::uint64_t> freed;  ///< clusters it named
  };
  [[nodiscard]] Task<Result<void>> expand_zero_snapshots(std::vector<Snapshot> list);
  /// `guest`: the offset on the disk of the table's first cluster.
  [[nodiscard]] Task<Result<void>> expand_zero_table(std::uint64_t table, std::uint64_t guest,
                                                     std::vector<ChangedTable>& changed);
  /// A cluster of zeroes with that count; gives its place in the file.
  [[nodiscard]] Task<Result<std::uint64_t>> allocate_zeroes(std::uint64_t guest, std::int64_t count);
  [[nodiscard]] Task<Result<void>> write_tables(std::vector<ChangedTable>& changed);

  Image& image_;
  Report report_;
  std::uint64_t passed_ = 0;  ///< entries of the refcount table, those of each pass
  std::uint64_t expanded_ = 0;
  std::uint64_t to_expand_ = 0;  ///< entries of the L1 tables
};

}  // namespace whistler::qcow2
