// The list of internal snapshots as it lies in the file.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/task.hpp"
#include "block/block_device.hpp"
#include "block/qcow2/format.hpp"
#include "block/qcow2/header.hpp"

namespace whistler::qcow2 {

struct Snapshot {
  std::string id = {};
  std::string name = {};
  std::uint64_t l1_table_offset = 0;
  std::uint32_t l1_size = 0;  ///< entries
  std::uint32_t date_seconds = 0;
  std::uint32_t date_nanoseconds = 0;
  std::uint64_t vm_clock_nanoseconds = 0;
  std::uint64_t vm_state_size = 0;
  std::uint64_t disk_size = 0;
  /// Extra data beyond what is understood, kept as it is.
  std::vector<std::uint8_t> unknown_extra = {};
  std::uint64_t instruction_count = ~std::uint64_t{0};
  std::uint32_t extra_bytes = 24;  ///< bytes of extra data in the file
};

struct SnapshotTable {
  std::vector<Snapshot> snapshots;
  std::uint64_t used = 0;  ///< bytes of the file
};

/// What a repair leaves out of a table that is larger than allowed.
struct SnapshotTableRepair {
  std::vector<std::string> messages = {};  ///< one line each, as qemu-img says it
  std::uint64_t overhanging = 0;           ///< snapshots behind the largest table allowed
  std::uint64_t shortened = 0;             ///< snapshots with more extra data than allowed
};

/// Reads the list that `header` names. A table that breaks the limits is an error that names the snapshot and
/// the place; with `repair`, what breaks them is left out and told there. Where the L1 tables lie is not
/// looked at. A disk size that a snapshot does not store is the image's.
[[nodiscard]] Task<Result<SnapshotTable>> read_snapshot_table(BlockDevice& file, const Header& header,
                                                              SnapshotTableRepair* repair = nullptr);

/// Whether a snapshot's L1 table may lie where the list says. Errors name `name` and the snapshot.
[[nodiscard]] Result<void> check_l1_place(const Snapshot& snapshot, const Geometry& geometry,
                                          const std::string& name);

[[nodiscard]] std::vector<std::uint8_t> encode_snapshot_table(const std::vector<Snapshot>& snapshots);

}  // namespace whistler::qcow2
