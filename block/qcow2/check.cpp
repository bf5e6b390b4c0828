#include "block/qcow2/check.hpp"

#include <algorithm>
#include <cerrno>

#include "block/qcow2/bitmap_directory.hpp"
#include "block/qcow2/checker.hpp"
#include "block/qcow2/snapshots.hpp"

namespace whistler::qcow2 {

namespace {
constexpr std::uint64_t kMaxClusters = std::uint64_t{1} << 32;

/// Whether any of the entry's bytes come from its host cluster.
bool has_data(L2Entry entry, const Geometry& geometry) {
  return geometry.extended_l2 ? (entry.bitmap & 0xffffffff) != 0 : (entry.value & kZeroFlag) == 0;
}
}  // namespace

Task<Result<std::vector<std::uint8_t>>> Checker::read(std::uint64_t offset, std::uint64_t bytes) {
  std::vector<std::uint8_t> data(static_cast<std::size_t>(bytes));
  const iovec vec{data.data(), data.size()};
  auto done = co_await image_.file_->readv(offset, {&vec, 1});
  if (!done) {
    co_return std::unexpected(done.error());
  }
  co_return data;
}

void Checker::count(std::uint64_t offset, std::uint64_t bytes) {
  if (bytes == 0) {
    return;
  }
  // The last cluster may be shorter than the others, so a use may end behind the file, but within a cluster.
  const auto file_size = image_.file_->size();
  if (offset > kMaxHostOffset || offset + bytes >= file_size + geometry_.cluster_size()) {
    note(report_.corruptions,
         "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset "
         "{:#x} size {:#x}",
         offset, bytes);
    return;
  }
  const auto first = offset >> geometry_.cluster_bits;
  const auto last = (offset + bytes - 1) >> geometry_.cluster_bits;
  for (auto cluster = first; cluster <= last; ++cluster) {
    if (cluster >= counts_.size()) {
      counts_.resize(static_cast<std::size_t>(cluster + 1));
    }
    count_use(cluster);
  }
}

void Checker::note_overflow(std::uint64_t cluster) {
  note(report_.corruptions,
       "ERROR: overflow cluster offset={:#x}\n"
       "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean "
       "copy if the image cannot be opened for writing",
       cluster << geometry_.cluster_bits);
}

Task<Result<void>> Checker::prepare() {
  const auto clusters = geometry_.clusters_for(image_.file_->size());
  if (clusters > kMaxClusters) {
    co_return fail(ErrorCode::kUnsupported,
                   fmt::format("{}: has {} clusters, more than can be checked", image_.name(), clusters));
  }
  report_.total_clusters = geometry_.clusters_for(image_.size());
  if (image_.refcounts_->table().empty()) {
    auto loaded = co_await image_.refcounts_->load(true);
    if (!loaded) {
      co_return loaded;
    }
  }
  auto done = co_await image_.refcounts_->release_tail();
  if (done) {
    done = co_await image_.flush();  // the check reads what is on disk
  }
  if (done && image_.counts_deferred_) {
    done = co_await image_.settle_counts();
  }
  co_return done;
}

Task<Result<CheckReport>> Checker::run() {
  const bool was_lazy = image_.lazy_;
  auto done = co_await prepare();
  if (done) {
    done = co_await load_snapshots();
  }
  if (done) {
    done = co_await count_all();
  }
  if (done) {
    done = co_await check_refcounts();
  }
  if (done) {
    done = co_await check_copied_flags();
  }
  if (done && snapshot_faults_ != 0) {
    done = co_await repair_snapshot_table();
  }
  if (done && (report_.corruptions_fixed != 0 || report_.leaks_fixed != 0)) {
    done = co_await image_.flush();
  }
  if (done && repair_ == Repair::kAll && report_.corruptions == 0 &&
      (image_.header_.incompatible & (kCorruptBit | kDirty)) != 0) {
    image_.header_.incompatible &= ~(kCorruptBit | kDirty);
    done = co_await image_.write_header_fields();
  }
  if (!done) {
    co_return std::unexpected(done.error());
  }
  image_.lazy_ = was_lazy;
  co_return std::move(report_);
}

Task<Result<void>> Checker::count_all() {
  counts_.assign(static_cast<std::size_t>(geometry_.clusters_for(image_.file_->size())), 0);
  report_.allocated_clusters = 0;
  report_.compressed_clusters = 0;
  report_.fragmented_clusters = 0;
  next_host_ = 0;
  needs_rebuild_ = false;
  count(0, geometry_.cluster_size());
  count(image_.header_.l1_table_offset, image_.l1_.size() * 8);
  auto done = co_await count_l1(image_.l1_, true);
  if (done) {
    done = co_await count_snapshots();
  }
  if (const auto place = image_.header_.crypto_header()) {
    count(place->offset, place->bytes);
  }
  if (done) {
    done = co_await count_bitmaps();
  }
  if (done) {
    done = co_await count_refcount_structure();
  }
  co_return done;
}

Task<Result<void>> Checker::count_refcount_structure() {
  const auto& header = image_.header_;
  const auto table_bytes = std::uint64_t{header.refcount_table_clusters} << geometry_.cluster_bits;
  count(header.refcount_table_offset, table_bytes);
  // As it is on disk: in memory, entries that cannot be are left out.
  auto table = co_await read(header.refcount_table_offset, table_bytes);
  if (!table) {
    co_return std::unexpected(table.error());
  }
  for (std::size_t i = 0; i < table->size() / 8; ++i) {
    const auto block = load_be<std::uint64_t>(&(*table)[i * 8]);
    if (block == 0) {
      continue;
    }
    if (geometry_.in_cluster(block) != 0) {
      note(report_.corruptions,
           "ERROR refcount block {} is not cluster aligned; refcount table entry corrupted", i);
      needs_rebuild_ = true;
      continue;
    }
    if (block > kMaxHostOffset || block >= image_.file_->size()) {
      const bool fixing = fix(Repair::kAll);
      note(fixing ? report_.corruptions_fixed : report_.corruptions, "{} refcount block {} is outside image",
           fixing ? "Repairing" : "ERROR", i);
      if (fixing) {
        auto dropped = co_await drop_block(i);
        if (!dropped) {
          co_return dropped;
        }
      }
      continue;
    }
    count(block, geometry_.cluster_size());
    const auto uses_of_it = uses(block >> geometry_.cluster_bits);
    if (uses_of_it != 1) {
      note(report_.corruptions, "ERROR refcount block {} refcount={}", i, uses_of_it);
      needs_rebuild_ = true;
    }
  }
  co_return Result<void>{};
}

/// Erases an entry of the table on disk; in memory it was never there. What it counted counts as free.
Task<Result<void>> Checker::drop_block(std::uint64_t index) {
  std::uint64_t nothing = 0;
  const iovec vec{&nothing, sizeof nothing};
  auto written = co_await image_.file_->writev(image_.header_.refcount_table_offset + index * 8, {&vec, 1});
  co_return written;
}

/// Reads the list of snapshots, and finds what a repair of it would change.
Task<Result<void>> Checker::load_snapshots() {
  const bool fixing = fix(Repair::kAll);
  const auto& header = image_.header_;
  if (header.nb_snapshots > kMaxSnapshots && !fixing) {
    auto error =
        fail(ErrorCode::kCorrupt,
             fmt::format("{}: {} snapshots are more than the allowed {}; check -r all leaves the rest out",
                         image_.name(), header.nb_snapshots, kMaxSnapshots),
             fmt::format("ERROR snapshot table too large\nYou can force-remove all {} overhanging snapshots "
                         "with qemu-img check -r all",
                         header.nb_snapshots - kMaxSnapshots));
    error.error().sys_errno = EFBIG;
    co_return error;
  }
  SnapshotTableRepair left_out;
  auto table = co_await read_snapshot_table(*image_.file_, header, fixing ? &left_out : nullptr);
  if (!table) {
    auto error = table.error();
    error.brief = "ERROR failed to read the snapshot table: " +
                  (error.brief.empty() ? std::move(error.message) : std::move(error.brief));
    co_return std::unexpected(std::move(error));
  }
  for (auto& message : left_out.messages) {
    say(std::move(message));
  }
  snapshot_faults_ = left_out.shortened;
  snapshots_ = std::move(*table);
  if (left_out.overhanging != 0) {  // before anything of theirs is freed
    image_.header_.nb_snapshots = static_cast<std::uint32_t>(snapshots_.snapshots.size());
    auto written = co_await image_.write_header_fields();
    if (!written) {
      co_return written;
    }
    report_.corruptions_fixed += left_out.overhanging;
  }
  // Version 3 wants the VM state's and the disk's size in every entry.
  for (std::size_t i = 0; i < snapshots_.snapshots.size() && header.version >= 3; ++i) {
    if (snapshots_.snapshots[i].extra_bytes < 16) {
      note(fixing ? snapshot_faults_ : report_.corruptions, "{} snapshot table entry {} is incomplete",
           fixing ? "Repairing" : "ERROR", i);
    }
  }
  co_return Result<void>{};
}

/// Writes the list as it was understood to a new place.
Task<Result<void>> Checker::repair_snapshot_table() {
  if (report_.corruptions != 0) {  // no place can be trusted to be free
    report_.corruptions += snapshot_faults_;
    co_return Result<void>{};
  }
  Snapshots snapshots(image_);
  auto done = co_await snapshots.replace_table(snapshots_.snapshots, snapshots_.used);
  if (done) {
    report_.corruptions_fixed += snapshot_faults_;
    co_await image_.load_snapshot_places();
  }
  co_return done;
}

Task<Result<void>> Checker::count_snapshots() {
  count(image_.header_.snapshots_offset, snapshots_.used);
  for (const auto& snapshot : snapshots_.snapshots) {
    if (std::uint64_t{snapshot.l1_size} * 8 > kMaxL1Bytes) {
      note(report_.corruptions,
           "ERROR snapshot {} ({}) l1_size={:#x}: L1 table is too large; snapshot table entry corrupted",
           snapshot.id, snapshot.name, snapshot.l1_size);
      continue;
    }
    if (!check_l1_place(snapshot, geometry_, image_.name())) {
      note(report_.corruptions,
           "ERROR snapshot {} ({}) l1_offset={:#x}: L1 table is not cluster aligned; snapshot table entry "
           "corrupted",
           snapshot.id, snapshot.name, snapshot.l1_table_offset);
      continue;
    }
    if (snapshot.l1_table_offset >= image_.file_->size()) {
      note(report_.corruptions,
           "ERROR snapshot '{}': its L1 table at offset {:#x} is beyond the end of the file", snapshot.name,
           snapshot.l1_table_offset);
      continue;
    }
    // What would be behind the end of the file is zero, and said to be wrong when it is counted.
    const auto bytes = std::uint64_t{snapshot.l1_size} * 8;
    const auto inside = std::min(bytes, align_down(image_.file_->size() - snapshot.l1_table_offset, 8));
    auto raw = co_await read(snapshot.l1_table_offset, inside);
    if (!raw) {
      co_return std::unexpected(raw.error());
    }
    std::vector<std::uint64_t> l1(static_cast<std::size_t>(inside / 8));
    for (std::size_t i = 0; i < l1.size(); ++i) {
      l1[i] = load_be<std::uint64_t>(&(*raw)[i * 8]);
    }
    count(snapshot.l1_table_offset, bytes);
    auto done = co_await count_l1(l1, false);
    if (!done) {
      co_return done;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Checker::count_bitmaps() {
  const auto extension = bitmap_extension(image_.header_);
  if (!extension) {
    co_return Result<void>{};
  }
  const auto file_size = image_.file_->size();
  if (auto ok = check_bitmap_extension(*extension, geometry_, file_size, image_.name()); !ok) {
    note(report_.corruptions, "ERROR {}", ok.error().message);
    co_return Result<void>{};
  }
  count(extension->directory_offset, extension->directory_bytes);
  auto directory = co_await read(extension->directory_offset, extension->directory_bytes);
  if (!directory) {
    co_return std::unexpected(directory.error());
  }
  const auto bitmaps = parse_bitmap_directory(*directory, extension->count, geometry_, image_.name());
  if (!bitmaps) {
    note(report_.corruptions, "ERROR {}", bitmaps.error().message);
    co_return Result<void>{};
  }
  const auto used = encode_bitmap_directory(*bitmaps).size();
  if (align_up(extension->directory_bytes, 8) != used || extension->reserved != 0) {
    note(report_.corruptions,
         "ERROR bitmaps extension: {} bytes of directory for {} bitmaps that take {}, reserved field {:#x}",
         extension->directory_bytes, extension->count, used, extension->reserved);
  }
  for (const auto& bitmap : *bitmaps) {
    if (!bitmap.within_limits()) {
      note(report_.corruptions,
           "ERROR bitmap '{}': type {}, granularity bits {}, flags {:#x}, {} table entries: not as specified",
           bitmap.name, bitmap.type, bitmap.granularity_bits, bitmap.flags, bitmap.table_entries);
    }
    const std::uint64_t table_bytes = std::uint64_t{bitmap.table_entries} * 8;
    if (bitmap.table_offset > file_size || table_bytes > file_size - bitmap.table_offset) {
      note(report_.corruptions, "ERROR bitmap '{}': its table at offset {:#x} is not inside the file",
           bitmap.name, bitmap.table_offset);
      continue;
    }
    count(bitmap.table_offset, table_bytes);
    auto table = co_await read(bitmap.table_offset, table_bytes);
    if (!table) {
      co_return std::unexpected(table.error());
    }
    for (std::size_t i = 0; i < bitmap.table_entries; ++i) {
      const auto cluster = load_be<std::uint64_t>(&(*table)[i * 8]) & kOffsetMask;
      if (cluster != 0) {
        count(cluster, geometry_.cluster_size());
      }
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Checker::count_l1(std::span<const std::uint64_t> l1, bool active) {
  for (std::size_t i = 0; i < l1.size(); ++i) {
    const auto table = l1[i] & kOffsetMask;
    if ((l1[i] & ~kOffsetMask & ~kCopied) != 0) {
      note(report_.corruptions, "ERROR found L1 entry with reserved bits set: {:x}", l1[i]);
    }
    if (table == 0) {
      continue;
    }
    if (geometry_.in_cluster(table) != 0 || table >= image_.file_->size()) {
      note(report_.corruptions,
           "ERROR L1 entry {} ({:#018x}) names no table at a cluster boundary within the file", i, l1[i]);
      continue;
    }
    count(table, geometry_.cluster_size());
    auto done = co_await count_l2(table, i * geometry_.l2_coverage(), active);
    if (!done) {
      co_return done;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Checker::count_l2(std::uint64_t offset, std::uint64_t guest, bool active) {
  auto table = co_await read(offset, geometry_.cluster_size());
  if (!table) {
    co_return std::unexpected(table.error());
  }
  bool changed = false;
  next_host_ = 0;  // as QEMU counts: a new table begins no fragment
  for (std::uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
    auto entry = load_l2(table->data(), i, geometry_);
    if (entry != L2Entry{} && count_entry(entry, guest + (i << geometry_.cluster_bits), active)) {
      entry.value = geometry_.extended_l2 ? 0 : kZeroFlag;
      store_l2(table->data(), i, geometry_, entry);
      changed = true;
    }
  }
  if (changed) {
    image_.l2_cache_->drop(offset, geometry_.cluster_size());
    const iovec vec{table->data(), table->size()};
    auto written = co_await image_.file_->writev(offset, {&vec, 1});
    co_return written;
  }
  co_return Result<void>{};
}

bool Checker::count_entry(L2Entry entry, std::uint64_t guest, bool active) {
  if ((entry.value & kCompressedFlag) != 0) {
    if (geometry_.external_data) {
      note(report_.corruptions, "ERROR guest offset {:#x}: compressed, though the data is in another file",
           guest);
      return false;
    }
    if ((entry.value & kCopied) != 0) {
      note(report_.corruptions, "ERROR: coffset={:#x}: copied flag must never be set for compressed clusters",
           entry.value & kOffsetMask);
    }
    const auto extent = geometry_.compressed_extent(entry.value);
    count(extent.offset, extent.bytes);
    if (active) {
      ++report_.allocated_clusters;
      ++report_.compressed_clusters;
      ++report_.fragmented_clusters;  // by definition, as QEMU counts them
    }
    return false;
  }
  const auto offset = entry.value & kOffsetMask;
  if ((entry.value & ~kOffsetMask & ~(kCopied | kCompressedFlag | kZeroFlag)) != 0) {
    note(report_.corruptions, "ERROR found l2 entry with reserved bits set: {:x}", entry.value);
  }
  const bool aligned = geometry_.in_cluster(offset) == 0;
  if (!aligned && has_data(entry, geometry_)) {
    note(report_.corruptions, "ERROR offset={:x}: Data cluster is not properly aligned; L2 entry corrupted.",
         offset);
  } else if (!aligned) {
    // Without data there is nothing to lose: the entry can do without the cluster.
    const bool fixing = fix(Repair::kAll);
    note(fixing ? report_.corruptions_fixed : report_.corruptions,
         "{} offset={:x}: Preallocated cluster is not properly aligned; L2 entry corrupted.",
         fixing ? "Repairing" : "ERROR", offset);
    if (fixing) {
      return true;
    }
  }
  for (unsigned sub = 0; aligned && sub < (geometry_.extended_l2 ? kSubclusters : 1); ++sub) {
    if (geometry_.classify(entry, sub).kind == Kind::kInvalid) {
      note(report_.corruptions,
           "ERROR guest offset {:#x}: L2 entry {:#018x} (bitmap {:#x}) contradicts the format", guest,
           entry.value, entry.bitmap);
      return false;
    }
  }
  const auto host = geometry_.host_of(entry);
  if (!host) {
    return false;
  }
  if (active) {
    ++report_.allocated_clusters;
    if (next_host_ != 0 && next_host_ != *host) {
      ++report_.fragmented_clusters;
    }
    next_host_ = *host + geometry_.cluster_size();
  }
  if (geometry_.external_data) {
    return false;
  }
  if (const auto cluster = *host >> geometry_.cluster_bits; cluster < counts_.size() && aligned) {
    count_use(cluster);  // what nearly all entries of nearly all images come to
  } else {
    count(*host, geometry_.cluster_size());
  }
  return false;
}

Task<Result<CheckReport>> check_image(Image& image, Repair repair) {
  Checker checker(image, repair);
  auto report = co_await checker.run();
  co_return report;
}

}  // namespace whistler::qcow2
