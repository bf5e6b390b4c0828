// Changes what the header of an existing image promises: its version, lazy refcounts, the width of refcounts.
//
// Each step leaves an image that is whole. Nothing else may use the image meanwhile. Errors are in QEMU's
// words.
#pragma once

#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshot_table.hpp"

namespace whistler::qcow2 {

class Amender {
 public:
  explicit Amender(Image& image) : image_(image) {}

  [[nodiscard]] Task<Result<void>> upgrade();
  /// To version 2: clusters that read as zeroes become what version 2 knows.
  [[nodiscard]] Task<Result<void>> downgrade();
  [[nodiscard]] Task<Result<void>> set_lazy_refcounts(bool lazy);
  [[nodiscard]] Task<Result<void>> set_refcount_bits(unsigned bits);
  /// The name of the external data file, "" for none stored; data_file_raw can only be given up.
  [[nodiscard]] Task<Result<void>> set_data_file(std::string name);
  [[nodiscard]] Task<Result<void>> drop_raw_data_file();

 private:
  [[nodiscard]] Task<Result<void>> write_header(Header header);
  [[nodiscard]] Task<Result<void>> expand_zero_clusters();
  [[nodiscard]] Task<Result<void>> expand_zero_range(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> clear_zero_entry(std::uint64_t offset);
  [[nodiscard]] Task<Result<std::vector<std::uint64_t>>> read_counts();

  // expand_zero.cpp
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
};

}  // namespace whistler::qcow2
