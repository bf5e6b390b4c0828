#include "block/qcow2/snapshot_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace whistler::qcow2 {

namespace {
constexpr std::size_t kKnownExtra = 24;  ///< VM state size, disk size, instruction count
constexpr std::size_t kMaxExtra = 1024;
}  // namespace

Result<SnapshotTable> parse_snapshot_table(std::span<const std::uint8_t> bytes, std::uint32_t count,
                                           std::uint64_t default_size, const Geometry& geometry,
                                           const std::string& name) {
  SnapshotTable table;
  std::size_t at = 0;
  const auto corrupt = [&](std::size_t number, std::string_view reason) {
    return fail(ErrorCode::kCorrupt, fmt::format("{}: qcow2 snapshot {} (byte {} of the snapshot table): {}",
                                                 name, number, at, reason));
  };
  for (std::uint32_t i = 0; i < count; ++i) {
    DiskSnapshot disk;
    if (bytes.size() - at < sizeof disk) {
      return corrupt(i, "the table ends within it");
    }
    std::memcpy(&disk, &bytes[at], sizeof disk);
    const std::size_t extra = disk.extra_data_size;
    const std::size_t id_size = disk.id_size;
    const std::size_t name_size = disk.name_size;
    if (extra > kMaxExtra) {
      return corrupt(i, fmt::format("{} bytes of extra data are more than the allowed {}", extra, kMaxExtra));
    }
    const auto length = sizeof disk + extra + id_size + name_size;
    if (bytes.size() - at < length) {
      return corrupt(i, "the table ends within it");
    }
    Snapshot snapshot{.l1_table_offset = disk.l1_table_offset,
                      .l1_size = disk.l1_size,
                      .date_seconds = disk.date_seconds,
                      .date_nanoseconds = disk.date_nanoseconds,
                      .vm_clock_nanoseconds = disk.vm_clock_nanoseconds,
                      .vm_state_size = disk.vm_state_size,
                      .disk_size = default_size,
                      .extra_bytes = disk.extra_data_size};
    if (std::uint64_t{snapshot.l1_size} * 8 > kMaxL1Bytes) {
      auto error = corrupt(i, fmt::format("its L1 table has {} entries, more than the allowed {}",
                                          snapshot.l1_size, kMaxL1Bytes / 8));
      error.error().brief = "Snapshot L1 table too large";
      return error;
    }
    if (geometry.in_cluster(snapshot.l1_table_offset) != 0 ||
        (snapshot.l1_size != 0 && snapshot.l1_table_offset == 0)) {
      auto error = corrupt(i, fmt::format("its L1 table at offset {:#x} is not at a cluster boundary",
                                          snapshot.l1_table_offset));
      error.error().brief = "Snapshot L1 table offset invalid";
      return error;
    }
    const auto* data = &bytes[at] + sizeof disk;
    if (extra >= 8) {
      snapshot.vm_state_size = load_be<std::uint64_t>(data);
    }
    if (extra >= 16) {
      snapshot.disk_size = load_be<std::uint64_t>(data + 8);
    }
    if (extra >= 24) {
      snapshot.instruction_count = load_be<std::uint64_t>(data + 16);
    }
    if (extra > kKnownExtra) {
      snapshot.unknown_extra.assign(data + kKnownExtra, data + extra);
    }
    snapshot.id.assign(reinterpret_cast<const char*>(data + extra), id_size);
    snapshot.name.assign(reinterpret_cast<const char*>(data + extra + id_size), name_size);
    table.snapshots.push_back(std::move(snapshot));
    at = std::min(static_cast<std::size_t>(align_up(at + length, 8)), bytes.size());
  }
  table.used = at;
  return table;
}

std::vector<std::uint8_t> encode_snapshot_table(const std::vector<Snapshot>& snapshots) {
  std::vector<std::uint8_t> out;
  for (const auto& snapshot : snapshots) {
    DiskSnapshot disk;
    disk.l1_table_offset = snapshot.l1_table_offset;
    disk.l1_size = snapshot.l1_size;
    disk.id_size = static_cast<std::uint16_t>(snapshot.id.size());
    disk.name_size = static_cast<std::uint16_t>(snapshot.name.size());
    disk.date_seconds = snapshot.date_seconds;
    disk.date_nanoseconds = snapshot.date_nanoseconds;
    disk.vm_clock_nanoseconds = snapshot.vm_clock_nanoseconds;
    disk.vm_state_size =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(snapshot.vm_state_size, 0xffff'ffff));
    disk.extra_data_size = static_cast<std::uint32_t>(kKnownExtra + snapshot.unknown_extra.size());
    auto at = out.size();
    const auto length =
        sizeof disk + kKnownExtra + snapshot.unknown_extra.size() + snapshot.id.size() + snapshot.name.size();
    out.resize(at + static_cast<std::size_t>(align_up(length, 8)));
    const auto append = [&](const void* data, std::size_t bytes) {
      if (bytes != 0) {
        std::memcpy(&out[at], data, bytes);
      }
      at += bytes;
    };
    append(&disk, sizeof disk);
    const std::array<Be<std::uint64_t>, 3> extra = {snapshot.vm_state_size, snapshot.disk_size,
                                                    snapshot.instruction_count};
    append(extra.data(), sizeof extra);
    append(snapshot.unknown_extra.data(), snapshot.unknown_extra.size());
    append(snapshot.id.data(), snapshot.id.size());
    append(snapshot.name.data(), snapshot.name.size());
  }
  return out;
}

}  // namespace whistler::qcow2
