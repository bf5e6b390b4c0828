#include "block/qcow2/snapshots.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/check.hpp"

namespace whistler::qcow2 {

namespace {

constexpr std::uint64_t kEverything = ~std::uint64_t{0};
constexpr std::size_t kMaxNameBytes = 0xffff;

/// One more than the highest id that is a number, as QEMU counts them.
std::string next_id(const std::vector<Snapshot>& list) {
  std::uint64_t highest = 0;
  for (const auto& snapshot : list) {
    std::uint64_t id = 0;
    std::from_chars(snapshot.id.data(), snapshot.id.data() + snapshot.id.size(), id);
    highest = std::max(highest, id);
  }
  return std::to_string(highest + 1);
}

}  // namespace

Task<Result<std::vector<std::uint8_t>>> Snapshots::read(std::uint64_t offset, std::uint64_t bytes) {
  std::vector<std::uint8_t> data(static_cast<std::size_t>(bytes));
  const iovec vec{data.data(), data.size()};
  auto done = co_await image_.file_->readv(offset, {&vec, 1});
  if (!done) {
    co_return std::unexpected(done.error());
  }
  co_return data;
}

Task<Result<void>> Snapshots::write(std::uint64_t offset, const std::vector<std::uint8_t>& bytes) {
  const iovec vec{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  auto done = co_await image_.file_->writev(offset, {&vec, 1});
  co_return done;
}

Task<Result<std::vector<Snapshot>>> Snapshots::list() {
  RangeLock::Hold everything(image_.requests_, 0, kEverything, RangeLock::Mode::kShared);
  co_await everything;
  auto table = co_await read_table();
  co_return table;
}

Task<Result<std::vector<Snapshot>>> Snapshots::read_table() {
  auto table = co_await read_snapshot_table(*image_.file_, image_.header_);
  if (!table) {
    co_return std::unexpected(table.error());
  }
  co_return std::move(table->snapshots);
}

Result<std::size_t> Snapshots::find(const std::vector<Snapshot>& list, const std::string& wanted) const {
  for (const auto member : {&Snapshot::id, &Snapshot::name}) {
    const auto found = std::find_if(list.begin(), list.end(),
                                    [&](const Snapshot& snapshot) { return snapshot.*member == wanted; });
    if (found != list.end()) {
      return static_cast<std::size_t>(found - list.begin());
    }
  }
  return fail(ErrorCode::kNotFound, fmt::format("{}: has no snapshot '{}'", image_.name(), wanted));
}

Task<Result<void>> Snapshots::mark_dirty(bool dirty) {
  auto& header = image_.header_;
  if (header.version < 3) {
    co_return Result<void>{};
  }
  const auto old = header.incompatible;
  header.incompatible = dirty ? old | kDirty : old & ~kDirty;
  auto written = co_await image_.write_header_fields();
  if (!written) {
    header.incompatible = old;
  }
  co_return written;
}

Task<Result<void>> Snapshots::recover(Error error) {
  auto flushed = co_await image_.flush_covering(true);
  if (flushed) {
    auto repaired = co_await check_image(image_, Repair::kAll);  // clears the dirty bit if all is well
    static_cast<void>(repaired);
  }
  co_return std::unexpected(std::move(error));
}

Task<Result<void>> Snapshots::finish(Result<void> done) {
  if (done) {
    done = co_await image_.flush_covering(true);
  }
  if (done) {
    done = co_await mark_dirty(false);
  }
  co_await image_.load_snapshot_places();
  if (!done) {
    done = co_await recover(done.error());
  }
  image_.resume_lazy();
  co_return done;
}

Task<Result<void>> Snapshots::create(Snapshot snapshot) {
  if (auto ok = image_.check_write(0, 0); !ok) {
    co_return ok;
  }
  if (snapshot.name.size() > kMaxNameBytes || geometry_.external_data) {
    co_return fail(
        ErrorCode::kUnsupported,
        fmt::format("{}: {}", image_.name(),
                    geometry_.external_data ? "an image with an external data file has no internal snapshots"
                                            : "the snapshot's name is too long"));
  }
  RangeLock::Hold everything(image_.requests_, 0, kEverything, RangeLock::Mode::kExclusive);
  co_await everything;
  auto done = co_await image_.settle_counts();  // all tables are on disk, and nothing waits to be freed
  auto list = co_await read_table();
  if (!done || !list) {
    co_return done ? std::unexpected(list.error()) : done;
  }
  if (list->size() >= kMaxSnapshots) {
    co_return fail(ErrorCode::kNoSpace, fmt::format("{}: has {} snapshots already, the most there can be",
                                                    image_.name(), list->size()));
  }
  snapshot.id = next_id(*list);
  done = co_await check_tree(image_.l1_);
  if (!done) {
    co_return done;
  }
  done = co_await mark_dirty(true);
  if (done) {
    done = co_await do_create(std::move(snapshot), std::move(*list));
    done = co_await finish(done);
  }
  co_return done;
}

Task<Result<void>> Snapshots::do_create(Snapshot snapshot, std::vector<Snapshot> list) {
  // Shared clusters must not be written in place: first everything is counted once more, which also clears
  // those flags.
  auto done = co_await adjust_tree(image_.l1_, 1);
  if (done) {
    done = co_await update_copied_flags();
  }
  if (!done) {
    co_return done;
  }
  auto l1 = image_.l1_;
  for (auto& entry : l1) {
    entry &= ~kCopied;
  }
  auto place = co_await write_l1(l1);
  if (!place) {
    co_return std::unexpected(place.error());
  }
  snapshot.l1_table_offset = *place;
  snapshot.l1_size = static_cast<std::uint32_t>(l1.size());
  snapshot.disk_size = image_.size();
  list.push_back(std::move(snapshot));
  done = co_await replace_table(std::move(list));
  co_return done;
}

Task<Result<void>> Snapshots::replace_table(std::vector<Snapshot> list,
                                            std::optional<std::uint64_t> old_bytes) {
  auto& header = image_.header_;
  const auto old_offset = header.snapshots_offset;
  const auto old_count = header.nb_snapshots;
  if (!old_bytes) {
    const auto old_table = co_await read_snapshot_table(*image_.file_, header);
    if (!old_table) {
      co_return std::unexpected(old_table.error());
    }
    old_bytes = old_table->used;
  }
  std::uint64_t place = 0;
  if (!list.empty()) {
    auto raw = encode_snapshot_table(list);
    if (raw.size() > kMaxSnapshotTableBytes) {  // no program would open the image any more
      co_return fail(
          ErrorCode::kNoSpace,
          fmt::format("{}: its snapshot table would have {} bytes, more than the allowed {}: remove "
                      "snapshots, or use shorter names",
                      image_.name(), raw.size(), kMaxSnapshotTableBytes),
          "File too large");
    }
    auto run = co_await image_.refcounts_->allocate_row(geometry_.clusters_for(raw.size()));
    if (!run) {
      co_return std::unexpected(run.error());
    }
    place = run->first << geometry_.cluster_bits;
    raw.resize(static_cast<std::size_t>(run->count << geometry_.cluster_bits));
    auto written = co_await write(place, raw);
    if (!written) {
      co_return written;
    }
  }
  // Counts, L1 copy and table are durable before the header names them.
  auto done = co_await image_.flush_covering(true);
  if (!done) {
    co_return done;
  }
  header.snapshots_offset = place;
  header.nb_snapshots = static_cast<std::uint32_t>(list.size());
  done = co_await image_.write_header_fields();
  if (!done) {
    header.snapshots_offset = old_offset;
    header.nb_snapshots = old_count;
    co_return done;
  }
  if (*old_bytes != 0) {
    done = co_await image_.refcounts_->adjust(old_offset >> geometry_.cluster_bits,
                                              geometry_.clusters_for(*old_bytes), -1);
  }
  co_return done;
}

Task<Result<std::vector<std::uint64_t>>> Snapshots::read_l1(Snapshot snapshot) {
  if (auto ok = check_l1_place(snapshot, geometry_, image_.name()); !ok) {
    co_return std::unexpected(ok.error());
  }
  const auto entries = snapshot.l1_size;
  if (snapshot.l1_table_offset >= image_.file_->size() && entries != 0) {
    co_return image_.corrupt(fmt::format(
        "snapshot: its L1 table at offset {:#x} is beyond the end of the file", snapshot.l1_table_offset));
  }
  auto raw = co_await read(snapshot.l1_table_offset, std::uint64_t{entries} * 8);
  if (!raw) {
    co_return std::unexpected(raw.error());
  }
  std::vector<std::uint64_t> l1(entries);
  for (std::size_t i = 0; i < l1.size(); ++i) {
    l1[i] = load_be<std::uint64_t>(&(*raw)[i * 8]);
    const auto table = l1[i] & kOffsetMask;
    if (geometry_.in_cluster(table) != 0 || (table != 0 && table >= image_.file_->size())) {
      co_return image_.corrupt(fmt::format(
          "L1 entry {} of a snapshot ({:#018x}) names no table at a cluster boundary within the file", i,
          l1[i]));
    }
  }
  co_return l1;
}

Task<Result<std::uint64_t>> Snapshots::write_l1(const std::vector<std::uint64_t>& l1) {
  if (l1.empty()) {
    co_return std::uint64_t{0};
  }
  auto run = co_await image_.refcounts_->allocate_row(geometry_.clusters_for(l1.size() * 8));
  if (!run) {
    co_return std::unexpected(run.error());
  }
  std::vector<std::uint8_t> raw(static_cast<std::size_t>(run->count << geometry_.cluster_bits));
  for (std::size_t i = 0; i < l1.size(); ++i) {
    store_be<std::uint64_t>(&raw[i * 8], l1[i]);
  }
  const auto place = run->first << geometry_.cluster_bits;
  auto written = co_await write(place, raw);
  if (!written) {
    co_return std::unexpected(written.error());
  }
  co_return place;
}

Task<Result<void>> Snapshots::adjust_tree(std::vector<std::uint64_t> l1, std::int64_t delta) {
  for (const auto l1_entry : l1) {
    const auto table = l1_entry & kOffsetMask;
    if (table == 0) {
      continue;
    }
    auto bytes = co_await read(table, geometry_.cluster_size());
    if (!bytes) {
      co_return std::unexpected(bytes.error());
    }
    for (std::uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
      const auto clusters = clusters_of(load_l2(bytes->data(), i, geometry_));
      if (!clusters) {
        continue;
      }
      auto done = co_await image_.refcounts_->adjust(clusters->first, clusters->count, delta);
      if (!done) {
        co_return done;
      }
    }
    auto done = co_await image_.refcounts_->adjust(table >> geometry_.cluster_bits, 1, delta);
    if (!done) {
      co_return done;
    }
  }
  co_return Result<void>{};
}

std::optional<Snapshots::Clusters> Snapshots::clusters_of(const L2Entry& entry) const {
  if ((entry.value & kCompressedFlag) != 0) {
    const auto extent = geometry_.compressed_extent(entry.value);
    const auto first = extent.offset >> geometry_.cluster_bits;
    return Clusters{first, ((extent.offset + extent.bytes - 1) >> geometry_.cluster_bits) - first + 1};
  }
  if (const auto host = geometry_.host_of(entry)) {
    return Clusters{*host >> geometry_.cluster_bits, 1};
  }
  return {};
}

Task<Result<void>> Snapshots::check_tree(std::vector<std::uint64_t> l1) {
  const auto unusable = [this](std::string_view what, std::uint64_t index, std::uint64_t cluster) {
    return image_.corrupt(fmt::format("{} {} names a cluster at offset {:#x}, for which there is no refcount",
                                      what, index, cluster << geometry_.cluster_bits));
  };
  for (std::uint64_t i = 0; i < l1.size(); ++i) {
    const auto table = l1[i] & kOffsetMask;
    if (table == 0) {
      continue;
    }
    if (!image_.refcounts_->covers(table >> geometry_.cluster_bits, 1)) {
      co_return unusable("L1 entry", i, table >> geometry_.cluster_bits);
    }
    auto bytes = co_await read(table, geometry_.cluster_size());
    if (!bytes) {
      co_return std::unexpected(bytes.error());
    }
    for (std::uint64_t k = 0; k < geometry_.l2_entries(); ++k) {
      const auto clusters = clusters_of(load_l2(bytes->data(), k, geometry_));
      if (clusters && !image_.refcounts_->covers(clusters->first, clusters->count)) {
        co_return unusable(fmt::format("L2 table at offset {:#x}, entry", table), k, clusters->first);
      }
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Snapshots::update_copied_flags() {
  for (std::size_t i = 0; i < image_.l1_.size(); ++i) {
    const auto table = image_.l1_[i] & kOffsetMask;
    if (table == 0) {
      continue;
    }
    auto uses = co_await image_.refcounts_->get(table >> geometry_.cluster_bits);
    if (!uses) {
      co_return std::unexpected(uses.error());
    }
    const auto wanted = table | (*uses == 1 ? kCopied : 0);
    if (image_.l1_[i] != wanted) {
      image_.set_l1(i, wanted);
    }
    auto done = co_await update_copied_flags_of(table);
    if (!done) {
      co_return done;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Snapshots::update_copied_flags_of(std::uint64_t table) {
  const auto slice_bytes = image_.l2_cache_->slice_bytes();
  for (std::uint64_t at = 0; at < geometry_.cluster_size(); at += slice_bytes) {
    auto pin = co_await image_.l2_cache_->get(table + at);
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    for (std::uint64_t i = 0; i < image_.entries_in_slice(); ++i) {
      auto entry = load_l2(pin->data(), i, geometry_);
      const auto host = (entry.value & kCompressedFlag) != 0 ? std::nullopt : geometry_.host_of(entry);
      if (!host) {
        continue;
      }
      auto uses = co_await image_.refcounts_->get(*host >> geometry_.cluster_bits);
      if (!uses) {
        co_return std::unexpected(uses.error());
      }
      const auto wanted = (entry.value & ~kCopied) | (*uses == 1 ? kCopied : 0);
      if (entry.value != wanted) {
        entry.value = wanted;
        store_l2(pin->data(), i, geometry_, entry);
        pin->mark_dirty();
      }
    }
    auto room = co_await image_.keep_within_bounds();
    if (!room) {
      co_return room;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Snapshots::check_applicable(Snapshot snapshot, std::vector<std::uint64_t> l1) {
  if (snapshot.disk_size > kMaxHostOffset || geometry_.l1_entries_for(snapshot.disk_size) * 8 > kMaxL1Bytes) {
    co_return fail(
        ErrorCode::kCorrupt,
        fmt::format("{}: snapshot '{}' is of a disk of {} bytes, too large for clusters of {} bytes",
                    image_.name(), snapshot.name, snapshot.disk_size, geometry_.cluster_size()));
  }
  auto done = co_await check_tree(std::move(l1));
  if (done) {
    done = co_await check_tree(image_.l1_);
  }
  co_return done;
}

Task<Result<void>> Snapshots::apply(std::string wanted) {
  return change(std::move(wanted), &Snapshots::do_apply);
}

Task<Result<void>> Snapshots::remove(std::string wanted) {
  return change(std::move(wanted), &Snapshots::do_remove);
}

Task<Result<void>> Snapshots::change(std::string wanted, Change what) {
  if (auto ok = image_.check_write(0, 0); !ok) {
    co_return ok;
  }
  RangeLock::Hold everything(image_.requests_, 0, kEverything, RangeLock::Mode::kExclusive);
  co_await everything;
  auto done = co_await image_.settle_counts();
  auto list = co_await read_table();
  if (!done || !list) {
    co_return done ? std::unexpected(list.error()) : done;
  }
  const auto index = find(*list, wanted);
  if (!index) {
    co_return std::unexpected(index.error());
  }
  // What can be known to go wrong does so before anything is changed.
  auto l1 = co_await read_l1((*list)[*index]);
  if (!l1) {
    co_return std::unexpected(l1.error());
  }
  if (what == &Snapshots::do_apply) {
    done = co_await check_applicable((*list)[*index], *l1);
    if (!done) {
      co_return done;
    }
  }
  done = co_await mark_dirty(true);
  if (done) {
    done = co_await (this->*what)(*index, std::move(*list), std::move(*l1));
    done = co_await finish(done);
  }
  co_return done;
}

Task<Result<void>> Snapshots::do_apply(std::size_t index, std::vector<Snapshot> list,
                                       std::vector<std::uint64_t> l1) {
  const auto& snapshot = list[index];
  // Every enabled bitmap sees all of the disk change.
  Result<void> noted;
  if (snapshot.disk_size != image_.size()) {
    noted = co_await image_.bitmaps_->prepare_resize(snapshot.disk_size);
  }
  if (noted) {
    noted = co_await image_.note_change(0, image_.size());
  }
  if (!noted) {
    co_return noted;
  }
  // A table made for a smaller disk is filled up.
  l1.resize(std::max<std::size_t>(l1.size(),
                                  static_cast<std::size_t>(geometry_.l1_entries_for(snapshot.disk_size))));
  for (auto& entry : l1) {
    entry &= ~kCopied;
  }
  auto done = co_await adjust_tree(l1, 1);
  if (!done) {
    co_return done;
  }
  auto place = co_await write_l1(l1);
  if (!place) {
    co_return std::unexpected(place.error());
  }
  done = co_await image_.flush_covering(true);  // before the header names it
  if (!done) {
    co_return done;
  }
  auto& header = image_.header_;
  const auto old = header;
  header.l1_table_offset = *place;
  header.l1_size = static_cast<std::uint32_t>(l1.size());
  header.size = snapshot.disk_size;
  done = co_await image_.write_header_fields();
  if (!done) {
    header = old;
    co_return done;
  }
  image_.bitmaps_->resize(header.size);
  noted = co_await image_.note_change(0, header.size);
  static_cast<void>(noted);  // it was begun before, so nothing can fail
  const auto old_l1 = std::exchange(image_.l1_, std::move(l1));
  const auto old_clusters = geometry_.clusters_for(old_l1.size() * 8);
  auto& refcounts = *image_.refcounts_;
  for (const auto entry : old_l1) {
    if ((entry & kOffsetMask) != 0) {
      refcounts.remove_metadata((entry & kOffsetMask) >> geometry_.cluster_bits);
      image_.l2_cache_->drop(entry & kOffsetMask, geometry_.cluster_size());
    }
  }
  refcounts.remove_metadata(old.l1_table_offset >> geometry_.cluster_bits, old_clusters);
  refcounts.add_metadata(header.l1_table_offset >> geometry_.cluster_bits,
                         geometry_.clusters_for(image_.l1_.size() * 8));
  for (const auto entry : image_.l1_) {
    if ((entry & kOffsetMask) != 0) {
      refcounts.add_metadata((entry & kOffsetMask) >> geometry_.cluster_bits);
    }
  }
  image_.decompressed_.clear();
  done = co_await adjust_tree(old_l1, -1);
  if (done && old_clusters != 0) {
    done = co_await refcounts.adjust(old.l1_table_offset >> geometry_.cluster_bits, old_clusters, -1);
  }
  if (done) {
    done = co_await update_copied_flags();
  }
  co_return done;
}

Task<Result<void>> Snapshots::do_remove(std::size_t index, std::vector<Snapshot> list,
                                        std::vector<std::uint64_t> l1) {
  const auto gone = list[index];
  list.erase(list.begin() + static_cast<std::ptrdiff_t>(index));
  auto done = co_await replace_table(std::move(list));
  // From here on the snapshot is gone, whatever happens; what it held is counted down.
  if (done) {
    done = co_await adjust_tree(std::move(l1), -1);
  }
  if (done && gone.l1_size != 0) {
    done = co_await image_.refcounts_->adjust(gone.l1_table_offset >> geometry_.cluster_bits,
                                              geometry_.clusters_for(std::uint64_t{gone.l1_size} * 8), -1);
  }
  if (done) {
    done = co_await update_copied_flags();
  }
  co_return done;
}

}  // namespace whistler::qcow2
