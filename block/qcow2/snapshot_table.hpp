// The list of internal snapshots as it lies in the file.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "block/qcow2/format.hpp"

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

/// Bytes [begin of table, ...) of which the table takes a part: `used` says how much. `default_size`: the
/// disk size for snapshots that do not store theirs. Errors name `name` and the snapshot's number.
struct SnapshotTable {
  std::vector<Snapshot> snapshots;
  std::uint64_t used = 0;
};
[[nodiscard]] Result<SnapshotTable> parse_snapshot_table(std::span<const std::uint8_t> bytes,
                                                         std::uint32_t count, std::uint64_t default_size,
                                                         const Geometry& geometry, const std::string& name);

[[nodiscard]] std::vector<std::uint8_t> encode_snapshot_table(const std::vector<Snapshot>& snapshots);

}  // namespace whistler::qcow2
