#include "block/qcow2/snapshot_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace whistler::qcow2 {

namespace {

constexpr std::size_t kKnownExtra = 24;  ///< VM state size, disk size, instruction count
constexpr std::size_t kMaxExtra = 1024;
constexpr std::uint64_t kLongestEntry = align_up(sizeof(DiskSnapshot) + kMaxExtra + 2 * 0xffff, 8);
constexpr std::uint64_t kFirstWindow = 64 * 1024;  ///< holds the tables of nearly all images
/// What a repair reads at most, of a table that is too large.
constexpr std::uint64_t kMostRepaired = 2 * kMaxSnapshotTableBytes;

/// Takes the list apart; see read_snapshot_table().
class Parser {
 public:
  Parser(std::span<const std::uint8_t> bytes, bool cut_short, const Header& header, std::string name,
         SnapshotTableRepair* repair)
      : bytes_(bytes), cut_short_(cut_short), header_(header), name_(std::move(name)), repair_(repair) {}

  Result<SnapshotTable> parse() {
    const auto count = std::min(header_.nb_snapshots, kMaxSnapshots);
    if (const auto beyond = header_.nb_snapshots - count; repair_ != nullptr && beyond != 0) {
      repair_->overhanging += beyond;
      repair_->messages.push_back(fmt::format("Discarding {} overhanging snapshots", beyond));
    }
    for (; number_ < count; ++number_) {
      auto more = parse_entry(count);
      if (!more) {
        return std::unexpected(more.error());
      }
      if (!*more) {
        break;
      }
    }
    table_.used = at_;
    return std::move(table_);
  }
  /// The table went on where the bytes ended.
  [[nodiscard]] bool wants_more() const { return wants_more_; }

 private:
  [[nodiscard]] std::unexpected<Error> corrupt(std::string_view reason) const {
    return fail(ErrorCode::kCorrupt, fmt::format("{}: qcow2 snapshot {} (byte {} of the snapshot table): {}",
                                                 name_, number_, at_, reason));
  }
  [[nodiscard]] std::unexpected<Error> too_large(std::string_view reason, std::string brief) const {
    auto error = corrupt(reason);
    error.error().sys_errno = EFBIG;
    error.error().brief = std::move(brief);
    return error;
  }

  /// A part of the table; what lies behind the end of the file is zero.
  [[nodiscard]] std::vector<std::uint8_t> part(std::size_t begin, std::size_t size) const {
    std::vector<std::uint8_t> copy(size);
    if (begin < bytes_.size()) {
      std::ranges::copy(bytes_.subspan(begin, std::min(size, bytes_.size() - begin)), copy.begin());
    }
    return copy;
  }
  [[nodiscard]] std::string text(std::size_t begin, std::size_t size) const {
    const auto copy = part(begin, size);
    return {copy.begin(), std::ranges::find(copy, 0)};
  }

  /// The table goes on beyond what is allowed. False: it is to end here.
  Result<bool> overhangs(std::uint32_t count) {
    const auto left = count - number_;
    if (repair_ != nullptr) {
      repair_->overhanging += left;
      repair_->messages.push_back(
          fmt::format("Discarding {} overhanging snapshots (snapshot table is too big)", left));
      return false;
    }
    return too_large(
        fmt::format("the table is larger than the allowed {} bytes; check -r all leaves the last {} "
                    "snapshots out",
                    kMaxSnapshotTableBytes, left),
        fmt::format("Snapshot table is too big\nYou can force-remove all {} overhanging snapshots "
                    "with qemu-img check -r all",
                    left));
  }

  Result<bool> ends_within(std::uint32_t count) {
    wants_more_ = cut_short_;
    return cut_short_ ? overhangs(count) : corrupt("the table ends within it");
  }

  /// False: the table is to end before this one.
  Result<bool> parse_entry(std::uint32_t count) {
    DiskSnapshot disk;
    if (bytes_.size() < at_ + sizeof disk) {
      return ends_within(count);
    }
    std::memcpy(&disk, &bytes_[at_], sizeof disk);
    const std::size_t stored_extra = disk.extra_data_size;
    const auto extra = std::min(stored_extra, kMaxExtra);
    const std::size_t id_size = disk.id_size;
    const std::size_t name_size = disk.name_size;
    if (extra != stored_extra && repair_ == nullptr) {
      return too_large(
          fmt::format("{} bytes of extra data are more than the allowed {}; check -r all leaves the "
                      "rest out",
                      stored_extra, kMaxExtra),
          fmt::format("Too much extra metadata in snapshot table entry {}\nYou can force-remove this "
                      "extra metadata with qemu-img check -r all",
                      number_));
    }
    kept_ += align_up(sizeof disk + extra + id_size + name_size, 8);
    const auto length = sizeof disk + stored_extra + id_size + name_size;
    if (extra != stored_extra) {
      ++repair_->shortened;
      repair_->messages.push_back(
          fmt::format("Discarding too much extra metadata in snapshot table entry {} ({} > {})", number_,
                      stored_extra, kMaxExtra));
    }
    if (kept_ > kMaxSnapshotTableBytes) {
      return overhangs(count);
    }
    const bool beyond_file = bytes_.size() < at_ + length;
    if (beyond_file && (cut_short_ || repair_ == nullptr)) {
      return ends_within(count);
    }
    Snapshot snapshot{.l1_table_offset = disk.l1_table_offset,
                      .l1_size = disk.l1_size,
                      .date_seconds = disk.date_seconds,
                      .date_nanoseconds = disk.date_nanoseconds,
                      .vm_clock_nanoseconds = disk.vm_clock_nanoseconds,
                      .vm_state_size = disk.vm_state_size,
                      .disk_size = header_.size,
                      .extra_bytes = static_cast<std::uint32_t>(extra)};
    const auto begin = at_ + sizeof disk;
    const auto data = part(begin, extra);
    if (extra >= 8) {
      snapshot.vm_state_size = load_be<std::uint64_t>(data.data());
    }
    if (extra >= 16) {
      snapshot.disk_size = load_be<std::uint64_t>(&data[8]);
    }
    if (extra >= 24) {
      snapshot.instruction_count = load_be<std::uint64_t>(&data[16]);
    }
    if (extra > kKnownExtra) {
      snapshot.unknown_extra.assign(data.begin() + kKnownExtra, data.end());
    }
    snapshot.id = text(begin + stored_extra, id_size);
    snapshot.name = text(begin + stored_extra + id_size, name_size);
    table_.snapshots.push_back(std::move(snapshot));
    const auto end = static_cast<std::size_t>(align_up(at_ + length, 8));
    // A damaged length that leads behind the end of the file claims at most the cluster there.
    const auto tolerance = beyond_file ? header_.geometry().cluster_size() - 1 : 0;
    at_ = std::min(end, bytes_.size() + static_cast<std::size_t>(tolerance));
    return true;
  }

  std::span<const std::uint8_t> bytes_;
  bool cut_short_;  ///< the file has more than these bytes
  bool wants_more_ = false;
  const Header& header_;
  std::string name_;
  SnapshotTableRepair* repair_;
  SnapshotTable table_;
  std::uint32_t number_ = 0;
  std::size_t at_ = 0;
  std::uint64_t kept_ = 0;  ///< bytes the table would have without what is left out
};

}  // namespace

Task<Result<SnapshotTable>> read_snapshot_table(BlockDevice& file, const Header& header,
                                                SnapshotTableRepair* repair) {
  if (header.nb_snapshots == 0) {
    co_return SnapshotTable{};
  }
  const auto rest = file.size() - std::min(file.size(), header.snapshots_offset);
  // Room for one entry more than allowed, so that it can be told from one that ends with the file.
  const auto most =
      std::min(rest, repair != nullptr ? kMostRepaired : kMaxSnapshotTableBytes + kLongestEntry);
  for (auto window = std::min(most, kFirstWindow);; window = std::min(most, window * 32)) {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(window));
    const iovec vec{bytes.data(), bytes.size()};
    auto read = co_await file.readv(header.snapshots_offset, {&vec, 1});
    if (!read) {
      co_return std::unexpected(read.error());
    }
    SnapshotTableRepair found;
    Parser parser(bytes, window < rest, header, file.name(), repair != nullptr ? &found : nullptr);
    auto table = parser.parse();
    if (parser.wants_more() && window < most) {
      continue;
    }
    if (repair != nullptr) {
      *repair = std::move(found);
    }
    co_return table;
  }
}

Result<void> check_l1_place(const Snapshot& snapshot, const Geometry& geometry, const std::string& name) {
  const auto corrupt = [&](const std::string& reason, std::string brief) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("{}: qcow2 snapshot {} ({}): {}", name, snapshot.id, snapshot.name, reason),
                std::move(brief));
  };
  if (std::uint64_t{snapshot.l1_size} * 8 > kMaxL1Bytes) {
    return corrupt(fmt::format("its L1 table has {} entries, more than the allowed {}", snapshot.l1_size,
                               kMaxL1Bytes / 8),
                   "Snapshot L1 table too large");
  }
  if (geometry.in_cluster(snapshot.l1_table_offset) != 0 ||
      (snapshot.l1_size != 0 && snapshot.l1_table_offset == 0)) {
    return corrupt(
        fmt::format("its L1 table at offset {:#x} is not at a cluster boundary", snapshot.l1_table_offset),
        "Snapshot L1 table offset invalid");
  }
  return {};
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
