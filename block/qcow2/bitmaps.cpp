#include "block/qcow2/bitmaps.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "block/iovec.hpp"
#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

namespace {
constexpr std::uint64_t kMinDefaultGranularity = 4096;
constexpr std::uint64_t kMaxDefaultGranularity = 65536;
/// A table entry without a cluster: all its bits are set.
constexpr std::uint64_t kAllOnes = 1;

std::unexpected<Error> inconsistent(const std::string& name) {
  return fail(ErrorCode::kCorrupt,
              fmt::format("Bitmap '{}' is inconsistent and cannot be used\n"
                          "Try block-dirty-bitmap-remove to delete this bitmap from disk",
                          name));
}
}  // namespace

std::uint64_t Bitmaps::default_granularity() const {
  return std::clamp(image_.geometry_.cluster_size(), kMinDefaultGranularity, kMaxDefaultGranularity);
}

Task<Result<void>> Bitmaps::load() {
  if (loaded_) {
    co_return Result<void>{};
  }
  entries_.clear();
  if (const auto extension = bitmap_extension(image_.header_)) {
    if (auto ok = check_bitmap_extension(*extension, image_.geometry_, image_.file_->size(), image_.name());
        !ok) {
      co_return ok;
    }
    std::vector<std::uint8_t> raw(static_cast<std::size_t>(extension->directory_bytes));
    const iovec vec{raw.data(), raw.size()};
    auto read = co_await image_.file_->readv(extension->directory_offset, {&vec, 1});
    if (!read) {
      co_return read;
    }
    auto bitmaps = parse_bitmap_directory(raw, extension->count, image_.geometry_, image_.name());
    if (!bitmaps) {
      co_return std::unexpected(bitmaps.error());
    }
    for (auto& bitmap : *bitmaps) {
      entries_.push_back({.disk = std::move(bitmap)});
    }
  }
  loaded_ = true;
  update_tracking();
  co_return Result<void>{};
}

void Bitmaps::update_tracking() {
  tracking_ = std::any_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
    return entry.disk.usable() && (entry.disk.flags & kBitmapAuto) != 0;
  });
}

Task<Result<std::vector<std::uint64_t>>> Bitmaps::read_table(const DiskBitmap& disk) {
  const auto& geometry = image_.geometry_;
  const auto file_size = image_.file_->size();
  const auto bytes = std::uint64_t{disk.table_entries} * 8;
  const auto damaged = [&] {
    return fail(ErrorCode::kCorrupt,
                fmt::format("{}: qcow2 bitmap '{}': its table at offset {:#x} is damaged", image_.name(),
                            disk.name, disk.table_offset));
  };
  if (disk.table_offset > file_size || bytes > file_size - disk.table_offset) {
    co_return damaged();
  }
  std::vector<std::uint8_t> raw(static_cast<std::size_t>(bytes));
  const iovec vec{raw.data(), raw.size()};
  auto read = co_await image_.file_->readv(disk.table_offset, {&vec, 1});
  if (!read) {
    co_return std::unexpected(read.error());
  }
  std::vector<std::uint64_t> table(disk.table_entries);
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] = load_be<std::uint64_t>(&raw[i * 8]);
    const bool cluster = (table[i] & kOffsetMask) != 0;
    if ((table[i] & ~kOffsetMask & ~kAllOnes) != 0 || (cluster && (table[i] & kAllOnes) != 0) ||
        geometry.in_cluster(table[i] & kOffsetMask) != 0 || (table[i] & kOffsetMask) >= file_size) {
      co_return damaged();
    }
  }
  co_return table;
}

Task<Result<void>> Bitmaps::load_bits(Entry& entry) {
  if (entry.bits) {
    co_return Result<void>{};
  }
  const auto bytes = DirtyBits::bytes_for(image_.size(), entry.disk.granularity_bits);
  if (bytes > kMaxBitmapBytes || image_.geometry_.clusters_for(bytes) != entry.disk.table_entries) {
    co_return fail(ErrorCode::kCorrupt, fmt::format("{}: qcow2 bitmap '{}': its size does not fit the disk",
                                                    image_.name(), entry.disk.name));
  }
  std::uint64_t in_memory = bytes;
  for (const auto& other : entries_) {
    in_memory += other.bits ? other.bits->raw().size() : 0;
  }
  if (in_memory > kMaxBitmapBytes) {
    co_return fail(ErrorCode::kNoSpace,
                   fmt::format("{}: qcow2 bitmap '{}': the bitmaps in use need {} MiB of memory, of {}: "
                               "remove one, or give it a larger granularity",
                               image_.name(), entry.disk.name, in_memory >> 20, kMaxBitmapBytes >> 20));
  }
  auto table = co_await read_table(entry.disk);
  if (!table) {
    co_return std::unexpected(table.error());
  }
  auto bits = std::make_unique<DirtyBits>(image_.size(), entry.disk.granularity_bits);
  const auto raw = bits->to_load();
  const auto cluster_size = static_cast<std::size_t>(image_.geometry_.cluster_size());
  for (std::size_t i = 0; i < table->size(); ++i) {
    const auto at = i * cluster_size;
    const iovec vec{&raw[at], std::min(cluster_size, raw.size() - at)};
    if (((*table)[i] & kOffsetMask) != 0) {
      auto read = co_await image_.file_->readv((*table)[i], {&vec, 1});
      if (!read) {
        co_return read;
      }
    } else if ((*table)[i] == kAllOnes) {
      std::fill_n(raw.begin() + static_cast<std::ptrdiff_t>(at), vec.iov_len, std::uint8_t{0xff});
    }
  }
  bits->loaded();
  entry.bits = std::move(bits);
  entry.table = std::move(*table);
  co_return Result<void>{};
}

Task<Result<void>> Bitmaps::note(std::uint64_t offset, std::uint64_t bytes) {
  if (!begun_) {
    const auto guard = co_await mutex_.lock();
    if (!begun_) {
      auto begun = co_await begin_tracking();
      if (!begun) {
        co_return begun;
      }
    }
  }
  for (auto& entry : entries_) {
    if (entry.bits && (entry.disk.flags & kBitmapAuto) != 0) {
      entry.bits->set(offset, bytes);
      entry.changed = true;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Bitmaps::begin_tracking() {
  for (auto& entry : entries_) {
    if (!entry.disk.usable() || (entry.disk.flags & kBitmapAuto) == 0) {
      continue;
    }
    auto loaded = co_await load_bits(entry);
    if (!loaded) {
      entry.disk.flags |= kBitmapInUse;  // it cannot be kept up to date, and says so from now on
    }
  }
  auto marked = co_await mark_in_use(false);
  co_return marked;
}

/// Says on disk that the bitmaps are not to be relied on: the enabled ones, or all.
Task<Result<void>> Bitmaps::mark_in_use(bool all) {
  const auto extension = bitmap_extension(image_.header_);
  if (!extension) {
    begun_ = true;
    co_return Result<void>{};
  }
  std::vector<DiskBitmap> marked;
  for (const auto& entry : entries_) {
    marked.push_back(entry.disk);
    if (entry.disk.usable() && (all || (entry.disk.flags & kBitmapAuto) != 0)) {
      marked.back().flags |= kBitmapInUse;
    }
  }
  auto raw = encode_bitmap_directory(marked);
  if (raw.size() > align_up(extension->directory_bytes, 8)) {
    co_return image_.corrupt("bitmap directory has changed under way");
  }
  const iovec vec{raw.data(), raw.size()};
  auto done = co_await image_.file_->writev(extension->directory_offset, {&vec, 1});
  if (done) {
    done = co_await image_.file_->flush();
  }
  begun_ = done.has_value();
  co_return done;
}

Task<Result<void>> Bitmaps::leave_in_use() {
  const auto guard = co_await mutex_.lock();
  auto marked = co_await mark_in_use(true);
  co_return marked;
}

Task<Result<void>> Bitmaps::prepare_resize(std::uint64_t disk_bytes) {
  const auto guard = co_await mutex_.lock();
  if (entries_.empty()) {
    co_return Result<void>{};
  }
  if (disk_bytes == 0) {
    co_return fail(ErrorCode::kUnsupported,
                   fmt::format("{}: a disk with bitmaps cannot be made empty: remove bitmap '{}' first",
                               image_.name(), entries_.front().disk.name));
  }
  for (auto& entry : entries_) {
    if (!entry.disk.usable()) {
      co_return inconsistent(entry.disk.name);
    }
    auto loaded = co_await load_bits(entry);
    if (!loaded) {
      co_return loaded;
    }
  }
  auto marked = co_await mark_in_use(true);
  co_return marked;
}

void Bitmaps::resize(std::uint64_t bytes) {
  for (auto& entry : entries_) {
    if (entry.bits) {
      entry.bits->resize(bytes);
      entry.changed = true;
    }
  }
}

Task<Result<void>> Bitmaps::sync() {
  const auto guard = co_await mutex_.lock();
  if (!begun_) {
    co_return Result<void>{};
  }
  auto done = co_await store();
  co_return done;
}

Task<Result<std::vector<BitmapInfo>>> Bitmaps::list() {
  auto loaded = co_await load();
  if (!loaded) {
    co_return std::unexpected(loaded.error());
  }
  std::vector<BitmapInfo> infos;
  for (const auto& entry : entries_) {
    const auto bits = std::min<unsigned>(entry.disk.granularity_bits, 63);
    infos.push_back({entry.disk.name, std::uint64_t{1} << bits, (entry.disk.flags & kBitmapInUse) != 0,
                     (entry.disk.flags & kBitmapAuto) != 0});
  }
  co_return infos;
}

Result<Bitmaps::Entry*> Bitmaps::find(const std::string& name, bool usable) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.disk.name == name; });
  if (found == entries_.end()) {
    return fail(ErrorCode::kNotFound, fmt::format("Dirty bitmap '{}' not found", name));
  }
  if (usable && !found->disk.usable()) {
    return inconsistent(name);
  }
  return &*found;
}

Task<Result<Bitmaps::Entry*>> Bitmaps::find_loaded(std::string name) {
  auto loaded = co_await load();
  if (!loaded) {
    co_return std::unexpected(loaded.error());
  }
  auto entry = find(name, true);
  if (entry) {
    auto bits = co_await load_bits(**entry);
    if (!bits) {
      co_return std::unexpected(bits.error());
    }
  }
  co_return entry;
}

Result<void> Bitmaps::check_new(const std::string& name, std::uint64_t granularity) const {
  const auto invalid = [](std::string why) { return fail(ErrorCode::kInvalid, std::move(why)); };
  const auto cannot = [&](std::string_view why) {
    return invalid(fmt::format("Can't make bitmap '{}' persistent in '{}': {}", name, image_.name(), why));
  };
  if (!std::has_single_bit(granularity) || granularity < 1U << kMinGranularityBits ||
      granularity > std::uint64_t{1} << kMaxGranularityBits) {
    return invalid("Granularity must be power of 2 and at least 512");
  }
  if (name.empty()) {
    return invalid("Bitmap name cannot be empty");
  }
  if (std::any_of(entries_.begin(), entries_.end(),
                  [&](const Entry& entry) { return entry.disk.name == name; })) {
    return fail(ErrorCode::kExists, fmt::format("Bitmap already exists: {}", name));
  }
  for (const auto& each : entries_) {
    if (!each.disk.within_limits()) {
      return cannot(fmt::format("Bitmap '{}' of it doesn't satisfy the constraints", each.disk.name));
    }
  }
  if (image_.size() == 0) {  // QEMU opens no image with a bitmap that has no table
    return cannot("the disk has no bytes to mark");
  }
  if (image_.header_.version < 3) {
    return cannot("Cannot store dirty bitmaps in qcow2 v2 files");
  }
  if (name.size() > kMaxBitmapName) {
    return cannot(fmt::format("Name length exceeds maximum ({} characters)", kMaxBitmapName));
  }
  if (entries_.size() >= kMaxBitmaps) {
    return cannot("Maximum number of persistent bitmaps is already reached");
  }
  const auto bits = static_cast<unsigned>(std::countr_zero(granularity));
  if (DirtyBits::bytes_for(image_.size(), bits) > kMaxBitmapBytes) {
    return cannot("Too much space will be occupied by the bitmap. Use larger granularity");
  }
  return {};
}

Task<Result<void>> Bitmaps::add(std::string name, std::uint64_t granularity, bool enabled) {
  RangeLock::Hold everything(image_.requests_, 0, ~std::uint64_t{0}, RangeLock::Mode::kExclusive);
  co_await everything;
  const auto guard = co_await mutex_.lock();
  auto loaded = co_await load();
  if (!loaded) {
    co_return loaded;
  }
  granularity = granularity == 0 ? default_granularity() : granularity;
  if (auto ok = check_new(name, granularity); !ok) {
    co_return ok;
  }
  Entry entry;
  entry.disk.granularity_bits = static_cast<std::uint8_t>(std::countr_zero(granularity));
  entry.disk.flags = enabled ? kBitmapAuto : 0;
  entry.disk.name = std::move(name);
  entry.bits = std::make_unique<DirtyBits>(image_.size(), entry.disk.granularity_bits);
  entry.changed = true;
  entries_.push_back(std::move(entry));
  auto stored = co_await store();
  if (!stored) {
    entries_.pop_back();
  }
  co_return stored;
}

Task<Result<void>> Bitmaps::remove(std::string name) {
  RangeLock::Hold everything(image_.requests_, 0, ~std::uint64_t{0}, RangeLock::Mode::kExclusive);
  co_await everything;
  const auto guard = co_await mutex_.lock();
  auto loaded = co_await load();
  if (!loaded) {
    co_return loaded;
  }
  auto entry = find(name, false);
  if (!entry) {
    co_return std::unexpected(entry.error());
  }
  if ((*entry)->table.empty()) {
    auto table = co_await read_table((*entry)->disk);
    if (table) {  // else its clusters leak
      (*entry)->table = std::move(*table);
    }
  }
  note_old_clusters(**entry, removed_);
  auto gone = std::move(**entry);
  const auto index = *entry - entries_.data();
  entries_.erase(entries_.begin() + index);
  auto stored = co_await store();
  if (!stored) {
    entries_.insert(entries_.begin() + index, std::move(gone));
    removed_.clear();
  }
  co_return stored;
}

Task<Result<void>> Bitmaps::clear(std::string name) {
  RangeLock::Hold everything(image_.requests_, 0, ~std::uint64_t{0}, RangeLock::Mode::kExclusive);
  co_await everything;
  const auto guard = co_await mutex_.lock();
  auto entry = co_await find_loaded(std::move(name));
  if (!entry) {
    co_return std::unexpected(entry.error());
  }
  (*entry)->bits->clear();
  (*entry)->changed = true;
  auto stored = co_await store();
  co_return stored;
}

Task<Result<void>> Bitmaps::enable(std::string name, bool enabled) {
  RangeLock::Hold everything(image_.requests_, 0, ~std::uint64_t{0}, RangeLock::Mode::kExclusive);
  co_await everything;
  const auto guard = co_await mutex_.lock();
  auto entry = co_await find_loaded(std::move(name));
  if (!entry) {
    co_return std::unexpected(entry.error());
  }
  const auto flags = (*entry)->disk.flags & ~kBitmapAuto;
  (*entry)->disk.flags = flags | (enabled ? kBitmapAuto : 0);
  auto stored = co_await store();
  co_return stored;
}

Task<Result<void>> Bitmaps::merge(std::string name, const DirtyBits& source) {
  RangeLock::Hold everything(image_.requests_, 0, ~std::uint64_t{0}, RangeLock::Mode::kExclusive);
  co_await everything;
  const auto guard = co_await mutex_.lock();
  auto entry = co_await find_loaded(std::move(name));
  if (!entry) {
    co_return std::unexpected(entry.error());
  }
  if (source.disk_bytes() != image_.size()) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("Bitmaps are of different sizes (destination size was {} bytes, source size "
                               "was {} bytes) and can't be merged",
                               image_.size(), source.disk_bytes()));
  }
  (*entry)->bits->merge(source);
  (*entry)->changed = true;
  auto stored = co_await store();
  co_return stored;
}

Task<Result<DirtyBits>> Bitmaps::content(std::string name) {
  const auto guard = co_await mutex_.lock();
  auto entry = co_await find_loaded(std::move(name));
  if (!entry) {
    co_return std::unexpected(entry.error());
  }
  co_return *(*entry)->bits;
}

}  // namespace whistler::qcow2
