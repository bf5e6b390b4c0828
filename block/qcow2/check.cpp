#include "block/qcow2/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "block/qcow2/bitmap_directory.hpp"
#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshot_table.hpp"

namespace whistler::qcow2 {

namespace {
/// Uses are counted in memory, two bytes a cluster.
constexpr std::uint64_t kMaxClusters = std::uint64_t{1} << 32;
using Count = std::uint16_t;
constexpr Count kMaxCount = std::numeric_limits<Count>::max();
}  // namespace

/// One run of a check over an image that nobody else uses.
class Checker {
 public:
  Checker(Image& image, Repair repair) : image_(image), geometry_(image.geometry_), repair_(repair) {}

  Task<Result<CheckReport>> run();

 private:
  template <typename... Args>
  void note(std::uint64_t& counter, fmt::format_string<Args...> format, Args&&... args) {
    ++counter;
    if (report_.messages.size() < CheckReport::kMaxMessages) {
      report_.messages.push_back(fmt::format(format, std::forward<Args>(args)...));
    }
  }
  bool fix(Repair wanted) const { return repair_ >= wanted; }

  void count(std::uint64_t offset, std::uint64_t bytes, std::string_view what);
  Task<Result<void>> count_tables();
  Task<Result<void>> count_snapshots();
  Task<Result<void>> count_bitmaps();
  Task<Result<void>> count_l1(std::uint64_t offset, std::span<const std::uint64_t> l1, bool active);
  Task<Result<void>> count_l2(std::uint64_t offset, std::uint64_t guest, bool active);
  void count_entry(L2Entry entry, std::uint64_t guest, bool active);
  Task<Result<void>> check_refcount_tables();
  Task<Result<void>> compare_refcounts();
  bool compare_refcount(std::uint64_t cluster, std::uint64_t stored);
  Task<Result<void>> check_copied_flags();
  Task<Result<void>> check_copied_l2(std::uint64_t l1_index);
  Task<Result<std::vector<std::uint8_t>>> read(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] Count uses(std::uint64_t offset) const {
    const auto cluster = offset >> geometry_.cluster_bits;
    return cluster < counts_.size() ? counts_[static_cast<std::size_t>(cluster)] : Count{0};
  }

  Image& image_;
  Geometry geometry_;
  Repair repair_;
  CheckReport report_;
  std::vector<Count> counts_;
  std::uint64_t next_host_ = 0;
};

Task<Result<std::vector<std::uint8_t>>> Checker::read(std::uint64_t offset, std::uint64_t bytes) {
  std::vector<std::uint8_t> data(static_cast<std::size_t>(bytes));
  const iovec vec{data.data(), data.size()};
  auto done = co_await image_.file_->readv(offset, {&vec, 1});
  if (!done) {
    co_return std::unexpected(done.error());
  }
  co_return data;
}

void Checker::count(std::uint64_t offset, std::uint64_t bytes, std::string_view what) {
  if (bytes == 0) {
    return;
  }
  const auto first = offset >> geometry_.cluster_bits;
  const auto last = (offset + bytes - 1) >> geometry_.cluster_bits;
  for (auto cluster = first; cluster <= last; ++cluster) {
    if (cluster >= counts_.size()) {
      // Data may reach beyond the end of the file, where it reads as zeroes, but not without bound.
      if (cluster > kMaxHostOffset >> geometry_.cluster_bits || cluster >= kMaxClusters ||
          cluster > 2 * counts_.size() + 65536) {
        note(report_.corruptions, "ERROR {} at offset {:#x} is far beyond the end of the file", what, offset);
        return;
      }
      counts_.resize(static_cast<std::size_t>(cluster + 1));
    }
    auto& counter = counts_[static_cast<std::size_t>(cluster)];
    counter = static_cast<Count>(std::min<unsigned>(counter + 1U, kMaxCount));
  }
}

Task<Result<CheckReport>> Checker::run() {
  const auto clusters = geometry_.clusters_for(image_.file_->size());
  if (clusters > kMaxClusters) {
    co_return fail(ErrorCode::kUnsupported,
                   fmt::format("{}: has {} clusters, more than can be checked", image_.name(), clusters));
  }
  counts_.resize(static_cast<std::size_t>(clusters));
  report_.total_clusters = geometry_.clusters_for(image_.size());
  if (image_.refcounts_->table().empty()) {
    auto loaded = co_await image_.refcounts_->load(true);
    if (!loaded) {
      co_return std::unexpected(loaded.error());
    }
  }
  auto done = co_await image_.refcounts_->release_tail();
  if (done) {
    done = co_await image_.flush();  // the check reads what is on disk
  }
  const bool was_lazy = image_.lazy_;
  if (done && image_.counts_deferred_) {
    done = co_await image_.settle_counts();
  }
  if (done) {
    done = co_await count_tables();
  }
  if (done) {
    done = co_await count_l1(image_.header_.l1_table_offset, image_.l1_, true);
  }
  if (done) {
    done = co_await count_snapshots();
  }
  if (done) {
    done = co_await count_bitmaps();
  }
  if (done) {
    done = co_await check_refcount_tables();
  }
  if (done) {
    done = co_await check_copied_flags();
  }
  if (done) {
    done = co_await compare_refcounts();
  }
  if (done && (report_.corruptions_fixed != 0 || report_.leaks_fixed != 0)) {
    done = co_await image_.flush();
  }
  if (!done) {
    co_return std::unexpected(done.error());
  }
  if (repair_ == Repair::kAll && report_.corruptions == 0 &&
      (image_.header_.incompatible & (kCorruptBit | kDirty)) != 0) {
    image_.header_.incompatible &= ~(kCorruptBit | kDirty);
    done = co_await image_.write_header_fields();
    if (!done) {
      co_return std::unexpected(done.error());
    }
  }
  image_.lazy_ = was_lazy;
  co_return std::move(report_);
}

Task<Result<void>> Checker::count_tables() {
  const auto& header = image_.header_;
  count(0, geometry_.cluster_size(), "header");
  count(header.refcount_table_offset, std::uint64_t{header.refcount_table_clusters} << geometry_.cluster_bits,
        "refcount table");
  if (const auto place = header.crypto_header()) {
    count(place->offset, place->bytes, "encryption header");
  }
  for (const auto block : image_.refcounts_->table()) {
    if (block != 0) {
      count(block, geometry_.cluster_size(), "refcount block");
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Checker::count_snapshots() {
  const auto& header = image_.header_;
  if (header.nb_snapshots == 0) {
    co_return Result<void>{};
  }
  const auto available = std::min(image_.file_->size() - header.snapshots_offset, kMaxSnapshotTableBytes);
  auto bytes = co_await read(header.snapshots_offset, available);
  if (!bytes) {
    co_return std::unexpected(bytes.error());
  }
  auto table = parse_snapshot_table(*bytes, header.nb_snapshots, header.size, geometry_, image_.name());
  if (!table) {
    note(report_.corruptions, "ERROR {}", table.error().message);
    co_return Result<void>{};
  }
  count(header.snapshots_offset, table->used, "snapshot table");
  for (const auto& snapshot : table->snapshots) {
    if (snapshot.l1_table_offset >= image_.file_->size()) {
      note(report_.corruptions,
           "ERROR snapshot '{}': its L1 table at offset {:#x} is beyond the end of the file", snapshot.name,
           snapshot.l1_table_offset);
      continue;
    }
    auto raw = co_await read(snapshot.l1_table_offset, std::uint64_t{snapshot.l1_size} * 8);
    if (!raw) {
      co_return std::unexpected(raw.error());
    }
    std::vector<std::uint64_t> l1(snapshot.l1_size);
    for (std::size_t i = 0; i < l1.size(); ++i) {
      l1[i] = load_be<std::uint64_t>(&(*raw)[i * 8]);
    }
    auto done = co_await count_l1(snapshot.l1_table_offset, l1, false);
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
  count(extension->directory_offset, extension->directory_bytes, "bitmap directory");
  auto directory = co_await read(extension->directory_offset, extension->directory_bytes);
  if (!directory) {
    co_return std::unexpected(directory.error());
  }
  const auto bitmaps = parse_bitmap_directory(*directory, extension->count, geometry_, image_.name());
  if (!bitmaps) {
    note(report_.corruptions, "ERROR {}", bitmaps.error().message);
    co_return Result<void>{};
  }
  for (const auto& bitmap : *bitmaps) {
    const std::uint64_t table_bytes = std::uint64_t{bitmap.table_entries} * 8;
    if (bitmap.table_offset > file_size || table_bytes > file_size - bitmap.table_offset) {
      note(report_.corruptions, "ERROR bitmap '{}': its table at offset {:#x} is not inside the file",
           bitmap.name, bitmap.table_offset);
      continue;
    }
    count(bitmap.table_offset, table_bytes, "bitmap table");
    auto table = co_await read(bitmap.table_offset, table_bytes);
    if (!table) {
      co_return std::unexpected(table.error());
    }
    for (std::size_t i = 0; i < bitmap.table_entries; ++i) {
      const auto cluster = load_be<std::uint64_t>(&(*table)[i * 8]) & kOffsetMask;
      if (cluster != 0) {
        count(cluster, geometry_.cluster_size(), "bitmap data");
      }
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Checker::count_l1(std::uint64_t offset, std::span<const std::uint64_t> l1, bool active) {
  count(offset, l1.size() * 8, "L1 table");
  for (std::size_t i = 0; i < l1.size(); ++i) {
    const auto table = l1[i] & kOffsetMask;
    if (table == 0) {
      continue;
    }
    if (geometry_.in_cluster(table) != 0 || table >= image_.file_->size()) {
      note(report_.corruptions,
           "ERROR L1 entry {} ({:#018x}) names no table at a cluster boundary within the file", i, l1[i]);
      continue;
    }
    count(table, geometry_.cluster_size(), "L2 table");
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
  for (std::uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
    const auto entry = load_l2(table->data(), i, geometry_);
    if (entry != L2Entry{}) {
      count_entry(entry, guest + (i << geometry_.cluster_bits), active);
    }
  }
  co_return Result<void>{};
}

void Checker::count_entry(L2Entry entry, std::uint64_t guest, bool active) {
  if ((entry.value & kCompressedFlag) != 0) {
    if (geometry_.external_data) {
      note(report_.corruptions, "ERROR guest offset {:#x}: compressed, though the data is in another file",
           guest);
      return;
    }
    if (active && (entry.value & kCopied) != 0) {
      note(report_.corruptions, "ERROR guest offset {:#x}: compressed, though marked as writable in place",
           guest);
    }
    const auto extent = geometry_.compressed_extent(entry.value);
    count(extent.offset, extent.bytes, "compressed cluster");
    if (active) {
      ++report_.allocated_clusters;
      ++report_.compressed_clusters;
      ++report_.fragmented_clusters;  // by definition, as QEMU counts them
    }
    return;
  }
  for (unsigned sub = 0; sub < (geometry_.extended_l2 ? kSubclusters : 1); ++sub) {
    if (geometry_.classify(entry, sub).kind == Kind::kInvalid) {
      note(report_.corruptions,
           "ERROR guest offset {:#x}: L2 entry {:#018x} (bitmap {:#x}) contradicts the format", guest,
           entry.value, entry.bitmap);
      return;
    }
  }
  const auto host = geometry_.host_of(entry);
  if (!host) {
    return;
  }
  if (active) {
    ++report_.allocated_clusters;
    if (next_host_ != 0 && next_host_ != *host) {
      ++report_.fragmented_clusters;
    }
    next_host_ = *host + geometry_.cluster_size();
  }
  if (!geometry_.external_data) {
    count(*host, geometry_.cluster_size(), "data cluster");
  }
}

Task<Result<void>> Checker::check_copied_flags() {
  for (std::size_t i = 0; i < image_.l1_.size(); ++i) {
    const auto entry = image_.l1_[i];
    const auto table = entry & kOffsetMask;
    if (table == 0 || geometry_.in_cluster(table) != 0 || table >= image_.file_->size()) {
      continue;
    }
    const bool sole = uses(table) == 1;
    if (sole != ((entry & kCopied) != 0)) {
      note(fix(Repair::kAll) ? report_.corruptions_fixed : report_.corruptions,
           "{} OFLAG_COPIED L2 cluster: l1_index={} l1_entry={:x} refcount={}",
           fix(Repair::kAll) ? "Repairing" : "ERROR", i, entry, uses(table));
      if (fix(Repair::kAll)) {
        image_.set_l1(i, table | (sole ? kCopied : 0));
      }
    }
    auto done = co_await check_copied_l2(i);
    if (!done) {
      co_return done;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Checker::check_copied_l2(std::uint64_t l1_index) {
  const auto table = image_.l1_[l1_index] & kOffsetMask;
  auto bytes = co_await read(table, geometry_.cluster_size());
  if (!bytes) {
    co_return std::unexpected(bytes.error());
  }
  bool changed = false;
  for (std::uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
    auto entry = load_l2(bytes->data(), i, geometry_);
    const bool copied = (entry.value & kCopied) != 0;
    bool right = false;
    std::uint64_t uses_of_it = 0;
    if ((entry.value & kCompressedFlag) == 0) {
      const auto host = geometry_.host_of(entry);
      if (geometry_.external_data || (host && geometry_.in_cluster(*host) != 0)) {
        continue;  // no refcounts to agree with
      }
      uses_of_it = host ? uses(*host) : 0;
      right = uses_of_it == 1;
    }
    if (right == copied) {
      continue;
    }
    note(fix(Repair::kAll) ? report_.corruptions_fixed : report_.corruptions,
         "{} OFLAG_COPIED data cluster: l2_entry={:x} refcount={}", fix(Repair::kAll) ? "Repairing" : "ERROR",
         entry.value, uses_of_it);
    entry.value = (entry.value & ~kCopied) | (right ? kCopied : 0);
    store_l2(bytes->data(), i, geometry_, entry);
    changed = true;
  }
  if (changed && fix(Repair::kAll)) {
    image_.l2_cache_->drop(table, geometry_.cluster_size());
    const iovec vec{bytes->data(), bytes->size()};
    auto written = co_await image_.file_->writev(table, {&vec, 1});
    co_return written;
  }
  co_return Result<void>{};
}

/// Whether table and blocks are sound in themselves and cover all that is in use; if not, and asked to, makes
/// them anew.
Task<Result<void>> Checker::check_refcount_tables() {
  auto& refcounts = *image_.refcounts_;
  const bool fixing = fix(Repair::kAll);
  auto& counter = fixing ? report_.corruptions_fixed : report_.corruptions;
  const auto word = fixing ? "Repairing" : "ERROR";
  bool sound = true;
  if (refcounts.damaged()) {
    note(counter, "{} refcount table: entries name blocks that are not at a cluster boundary within the file",
         word);
    sound = false;
  }
  for (const auto block : refcounts.table()) {
    if (block != 0 && uses(block) != 1) {
      note(counter, "{} refcount block at offset {:#x} is used more than once", word, block);
      sound = false;
    }
  }
  for (std::uint64_t cluster = 0; fixing && sound && cluster < counts_.size(); ++cluster) {
    if (counts_[static_cast<std::size_t>(cluster)] != 0 && !refcounts.covers(cluster)) {
      note(counter, "{} cluster {} is in use, but no refcount block covers it", word, cluster);
      sound = false;
    }
  }
  if (sound || !fixing) {
    co_return Result<void>{};
  }
  const auto uncount = [this](std::uint64_t offset, std::uint64_t clusters) {
    for (std::uint64_t i = 0; i < clusters; ++i) {
      auto& uses_of_it = counts_[static_cast<std::size_t>((offset >> geometry_.cluster_bits) + i)];
      uses_of_it = static_cast<Count>(uses_of_it - (uses_of_it != 0 ? 1 : 0));
    }
  };
  uncount(image_.header_.refcount_table_offset, image_.header_.refcount_table_clusters);
  for (const auto block : refcounts.table()) {
    if (block != 0) {
      uncount(block, 1);
    }
  }
  auto rebuilt = co_await refcounts.rebuild(counts_.size(), [this](std::uint64_t cluster) {
    return std::uint64_t{counts_[static_cast<std::size_t>(cluster)]};
  });
  co_return rebuilt;
}

Task<Result<void>> Checker::compare_refcounts() {
  auto& refcounts = *image_.refcounts_;
  const auto per_slice = refcounts.counts_per_slice();
  const auto covered = std::uint64_t{refcounts.table().size()} << geometry_.refcount_block_bits();
  const auto end = std::max<std::uint64_t>(counts_.size(), std::min(covered, kMaxClusters));
  for (std::uint64_t first = 0; first < end; first += per_slice) {
    const auto last = std::min(end, first + per_slice);
    if (!refcounts.covers(first)) {
      for (auto cluster = first; cluster < std::min<std::uint64_t>(last, counts_.size()); ++cluster) {
        static_cast<void>(compare_refcount(cluster, 0));
      }
      continue;
    }
    auto pin = co_await refcounts.slice_of(first);
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    for (auto cluster = first; cluster < last; ++cluster) {
      if (compare_refcount(cluster, load_refcount(pin->data(), cluster - first, geometry_.refcount_order))) {
        auto set = co_await refcounts.set(
            cluster, cluster < counts_.size() ? counts_[static_cast<std::size_t>(cluster)] : 0);
        if (!set) {
          co_return set;
        }
      }
    }
  }
  co_return Result<void>{};
}

/// Notes a count that is wrong; true if it shall be set right.
bool Checker::compare_refcount(std::uint64_t cluster, std::uint64_t stored) {
  const std::uint64_t counted = cluster < counts_.size() ? counts_[static_cast<std::size_t>(cluster)] : 0;
  if (counted != 0) {
    report_.image_end_offset = (cluster + 1) << geometry_.cluster_bits;
  }
  if (stored == counted || (counted == kMaxCount && stored >= kMaxCount)) {
    return false;
  }
  if (counted == 0 && image_.refcounts_->is_metadata(cluster)) {
    return false;  // a refcount block or table this repair made
  }
  const bool too_low = stored < counted;
  const bool fixing = fix(too_low ? Repair::kAll : Repair::kLeaks);
  if (too_low) {
    note(fixing ? report_.corruptions_fixed : report_.corruptions, "{} cluster {} refcount={} reference={}",
         fixing ? "Repairing" : "ERROR", cluster, stored, counted);
  } else {
    note(fixing ? report_.leaks_fixed : report_.leaks, "{} cluster {} refcount={} reference={}",
         fixing ? "Repairing" : "Leaked", cluster, stored, counted);
  }
  return fixing;
}

Task<Result<CheckReport>> check_image(Image& image, Repair repair) {
  Checker checker(image, repair);
  auto report = co_await checker.run();
  co_return report;
}

}  // namespace whistler::qcow2
