// What is done when the image is found damaged, and how a write that would damage it is told apart.
#include <fmt/format.h>

#include <algorithm>

#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshot_table.hpp"

namespace whistler::qcow2 {

namespace {
/// Of all snapshots together.
constexpr std::uint64_t kMaxSnapshotL1Bytes = 64 * 1024 * 1024;
}  // namespace

Task<void> Image::mark_corrupt(Error error) {
  // The reason alone: what corrupt() put in front of it names the file.
  const std::string_view mark = ": qcow2: ";
  const auto at = error.message.find(mark);
  const auto reason = at == std::string::npos ? error.message : error.message.substr(at + mark.size());
  if (read_only()) {
    if (!std::exchange(told_of_damage_, true)) {
      fmt::print(stderr,
                 "qcow2: Image is corrupt: {}; further non-fatal corruption events will be suppressed\n",
                 reason);
    }
    co_return;
  }
  told_of_damage_ = true;
  fmt::print(stderr, "qcow2: Marking image as corrupt: {}; further corruption events will be suppressed\n",
             reason);
  corrupt_ = true;
  if (header_.version >= 3) {
    header_.incompatible |= kCorruptBit;
    // Should this fail too, the image is still not written to any more.
    auto written = co_await write_header_fields();
    static_cast<void>(written);
  }
}

std::string Image::structure_at(std::uint64_t cluster) const {
  const auto bits = geometry_.cluster_bits;
  const auto within = [&](std::uint64_t offset, std::uint64_t bytes) {
    const auto first = offset >> bits;
    return cluster >= first && cluster < first + geometry_.clusters_for(bytes);
  };
  if (cluster == 0) {
    return "qcow2_header";
  }
  if (within(header_.l1_table_offset, l1_.size() * 8)) {
    return "active L1 table";
  }
  if (within(header_.refcount_table_offset, std::uint64_t{header_.refcount_table_clusters} << bits)) {
    return "refcount table";
  }
  const auto names_it = [&](std::uint64_t entry) { return (entry & kOffsetMask) >> bits == cluster; };
  if (std::any_of(l1_.begin(), l1_.end(), names_it)) {
    return "active L2 table";
  }
  const auto& blocks = refcounts_->table();
  if (std::any_of(blocks.begin(), blocks.end(), names_it)) {
    return "refcount block";
  }
  for (const auto& place : snapshot_places_) {
    if (cluster >= place.first && cluster < place.end) {
      const bool list = place.first == header_.snapshots_offset >> bits;
      return place.l1 ? "inactive L1 table" : list ? "snapshot table" : "inactive L2 table";
    }
  }
  return "a table";
}

std::unexpected<Error> Image::overlap(std::uint64_t cluster) const {
  return corrupt(
      fmt::format("Preventing invalid write on metadata (overlaps with {})", structure_at(cluster)));
}

bool Image::is_guarded(std::uint64_t cluster) const {
  if (refcounts_->is_metadata(cluster)) {
    return true;
  }
  const auto after =
      std::upper_bound(snapshot_places_.begin(), snapshot_places_.end(), cluster,
                       [](std::uint64_t at, const SnapshotPlace& place) { return at < place.first; });
  return after != snapshot_places_.begin() && cluster < std::prev(after)->end;
}

std::optional<std::uint64_t> Image::guarded_cluster(std::uint64_t host, std::uint64_t bytes) const {
  if (data_file_) {
    return std::nullopt;
  }
  const auto end = geometry_.clusters_for(host + bytes);
  for (auto cluster = host >> geometry_.cluster_bits; cluster < end; ++cluster) {
    if (is_guarded(cluster)) {
      return cluster;
    }
  }
  return std::nullopt;
}

Task<void> Image::load_snapshot_places() {
  snapshot_places_.clear();
  if (header_.nb_snapshots == 0) {
    co_return;
  }
  auto table = co_await read_snapshot_table(*file_, header_);
  if (!table) {
    co_return;  // whoever needs the list says what is wrong with it
  }
  std::erase_if(table->snapshots, [&](const Snapshot& snapshot) {
    return !check_l1_place(snapshot, geometry_, name());  // it can be neither applied nor removed
  });
  const auto add = [&](std::uint64_t offset, std::uint64_t length, bool l1) {
    const auto first = offset >> geometry_.cluster_bits;
    snapshot_places_.push_back({first, first + geometry_.clusters_for(length), l1});
  };
  add(header_.snapshots_offset, table->used, false);
  for (const auto& snapshot : table->snapshots) {
    add(snapshot.l1_table_offset, std::uint64_t{snapshot.l1_size} * 8, true);
  }
  // Their L2 tables too: data written over one would be lost to the snapshot, and read as a table.
  auto room = kMaxSnapshotL1Bytes;
  for (const auto& snapshot : table->snapshots) {
    const auto length = std::uint64_t{snapshot.l1_size} * 8;
    if (length > room) {
      break;  // more than any sound image has
    }
    room -= length;
    std::vector<std::uint8_t> l1(static_cast<std::size_t>(length));
    const iovec l1_vec{l1.data(), l1.size()};
    const auto read = co_await file_->readv(snapshot.l1_table_offset, {&l1_vec, 1});
    for (std::size_t i = 0; read && i < l1.size(); i += 8) {
      const auto l2 = load_be<std::uint64_t>(&l1[i]) & kOffsetMask;
      if (l2 != 0) {
        add(l2, geometry_.cluster_size(), false);
      }
    }
  }
  std::sort(snapshot_places_.begin(), snapshot_places_.end(),
            [](const SnapshotPlace& a, const SnapshotPlace& b) { return a.first < b.first; });
  const auto twice =
      std::ranges::unique(snapshot_places_, {}, [](const SnapshotPlace& place) { return place.first; });
  snapshot_places_.erase(twice.begin(), twice.end());
}

}  // namespace whistler::qcow2
