// From guest offsets to entries of L2 tables.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

namespace {

/// As C's "%#x" prints it: 0 has no prefix.
std::string hex(std::uint64_t value) { return value == 0 ? "0" : fmt::format("{:#x}", value); }

}  // namespace

std::unexpected<Error> Image::bad_entry(std::uint64_t guest, L2Entry entry, bool writing) const {
  const auto offset = entry.value & kOffsetMask;
  const bool zero = geometry_.classify({entry.value & ~kOffsetMask, entry.bitmap}, 0).kind == Kind::kZero;
  const auto place =
      fmt::format("(L2 offset: {}, L2 index: {})", hex(l1_[geometry_.l1_index(guest)] & kOffsetMask),
                  hex(geometry_.l2_index(guest)));
  if ((entry.value & kCompressedFlag) != 0 || geometry_.in_cluster(offset) == 0) {
    return corrupt(fmt::format("Invalid cluster entry found {}{}", writing ? "" : " ", place));
  }
  if (writing && zero) {
    return corrupt(fmt::format("Preallocated zero cluster offset {} unaligned (guest offset: {})",
                               hex(offset), hex(geometry_.cluster_start(guest))));
  }
  return corrupt(fmt::format("Cluster allocation offset {} unaligned {}", hex(offset), place));
}

std::optional<Error> Image::misplaced_in_raw_file(std::uint64_t guest, std::uint64_t host) const {
  if (!geometry_.external_data || (header_.autoclear & kRawExternalData) == 0 || guest == host) {
    return std::nullopt;
  }
  return corrupt(
             fmt::format("External data file host cluster offset {} does not match guest cluster offset: {}",
                         hex(geometry_.cluster_start(host)), hex(geometry_.cluster_start(guest))))
      .error();
}

Result<std::uint64_t> Image::l2_table_at(std::uint64_t l1_index) const {
  const auto table = l1_[l1_index] & kOffsetMask;
  if (geometry_.in_cluster(table) != 0 || (table != 0 && table >= file_->size())) {
    return corrupt(geometry_.in_cluster(table) != 0
                       ? fmt::format("L2 table offset {} unaligned (L1 index: {})", hex(table), hex(l1_index))
                       : fmt::format("L2 table offset {} is beyond the end of the file (L1 index: {})",
                                     hex(table), hex(l1_index)));
  }
  return table;
}

std::uint64_t Image::slice_offset(std::uint64_t table, std::uint64_t guest) const {
  return table + align_down(geometry_.l2_index(guest) * geometry_.l2_entry_bytes(), l2_cache_->slice_bytes());
}

std::uint64_t Image::index_in_slice(std::uint64_t guest) const {
  return geometry_.l2_index(guest) & (entries_in_slice() - 1);
}

Result<Image::Run> Image::run_in_slice(const std::uint8_t* slice, std::uint64_t offset,
                                       std::uint64_t bytes) const {
  auto index = index_in_slice(offset);
  auto entry = load_l2(slice, index, geometry_);
  const auto first = geometry_.classify(entry, geometry_.subcluster_index(offset));
  Run run{.kind = first.kind, .copied = (entry.value & kCopied) != 0};
  if (run.kind == Kind::kInvalid) {
    return bad_entry(offset, entry, false);
  }
  if (run.kind == Kind::kCompressed) {
    run.compressed = entry.value;
    run.bytes = std::min(bytes, geometry_.cluster_size() - geometry_.in_cluster(offset));
    return run;
  }
  const auto unit = geometry_.subcluster_size();
  if (run.kind == Kind::kData) {
    run.host = *first.host + geometry_.in_cluster(offset);
    if (auto error = misplaced_in_raw_file(offset, run.host)) {
      return std::unexpected(std::move(*error));
    }
  }
  run.bytes = unit - (offset & (unit - 1));
  const auto slice_entries = entries_in_slice();
  while (run.bytes < bytes) {
    const auto at = offset + run.bytes;
    if (geometry_.in_cluster(at) == 0) {
      if (++index == slice_entries) {
        break;
      }
      entry = load_l2(slice, index, geometry_);
    }
    const auto next = geometry_.classify(entry, geometry_.subcluster_index(at));
    if (next.kind != run.kind) {
      break;  // an invalid entry is reported when it is reached
    }
    if (run.kind == Kind::kData && (*next.host + geometry_.in_cluster(at) != run.host + run.bytes ||
                                    ((entry.value & kCopied) != 0) != run.copied)) {
      break;
    }
    run.bytes += unit;
  }
  run.bytes = std::min(run.bytes, bytes);
  return run;
}

std::optional<Result<Image::Run>> Image::find_run_cached(std::uint64_t offset, std::uint64_t bytes) {
  const auto l1_index = geometry_.l1_index(offset);
  const auto table = l2_table_at(l1_index);
  if (!table) {
    return std::unexpected(table.error());
  }
  if (*table == 0) {
    return Run{.bytes = std::min(bytes, geometry_.l2_coverage() - (offset & (geometry_.l2_coverage() - 1)))};
  }
  const auto pin = l2_cache_->find(slice_offset(*table, offset));
  if (!pin) {
    return std::nullopt;
  }
  return run_in_slice(pin.data(), offset, bytes);
}

Task<Result<Image::Run>> Image::find_run(std::uint64_t offset, std::uint64_t bytes) {
  for (;;) {
    if (auto run = find_run_cached(offset, bytes)) {
      co_return std::move(*run);
    }
    const auto table = l1_[geometry_.l1_index(offset)] & kOffsetMask;
    auto pin = co_await l2_cache_->get(slice_offset(table, offset));
    // While this waited, the table may have been copied and its old place given away: then what was read is
    // no table.
    if ((l1_[geometry_.l1_index(offset)] & kOffsetMask) != table) {
      continue;
    }
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    co_return run_in_slice(pin->data(), offset, bytes);
  }
}

Task<Result<SliceCache::Pin>> Image::writable_slice(std::uint64_t offset) {
  const auto l1_index = geometry_.l1_index(offset);
  if ((l1_[l1_index] & kCopied) == 0) {
    const auto guard = co_await l2_allocation_.lock();
    if ((l1_[l1_index] & kCopied) == 0) {  // nobody did it meanwhile
      auto owned = co_await own_l2_table(l1_index);
      if (!owned) {
        co_return std::unexpected(owned.error());
      }
    }
  }
  const auto table = l2_table_at(l1_index);
  if (!table) {
    co_return std::unexpected(table.error());
  }
  if (*table == 0) {
    co_return corrupt(fmt::format("L1 entry {} claims a table at offset 0", l1_index));
  }
  auto pin = co_await l2_cache_->get(slice_offset(*table, offset));
  co_return pin;
}

Task<Result<void>> Image::own_l2_table(std::uint64_t l1_index) {
  const auto old = l2_table_at(l1_index);
  if (!old) {
    co_return std::unexpected(old.error());
  }
  std::vector<std::uint8_t> table(static_cast<std::size_t>(geometry_.cluster_size()));
  // A table shared with a snapshot is copied; its entries keep saying "shared", for so are the clusters they
  // name.
  if (*old != 0) {
    file_->debug_event(DebugEvent::kL2AllocCowRead);
  }
  for (std::uint64_t at = 0; *old != 0 && at < table.size(); at += l2_cache_->slice_bytes()) {
    auto pin = co_await l2_cache_->get(*old + at);
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    std::memcpy(&table[at], pin->data(), l2_cache_->slice_bytes());
  }
  auto run = co_await refcounts_->allocate(1, "L2 table");
  if (!run) {
    co_return std::unexpected(run.error());
  }
  const auto place = run->first << geometry_.cluster_bits;
  l2_cache_->drop(place, geometry_.cluster_size());
  const iovec vec{table.data(), table.size()};
  file_->debug_event(DebugEvent::kL2AllocWrite);
  // The table is in the file before L1 names it: the barrier that precedes every write of L1 covers it.
  auto written = co_await file_->writev(place, {&vec, 1});
  if (!written) {
    auto undone = co_await refcounts_->adjust(run->first, 1, -1);
    static_cast<void>(undone);  // a leak at worst
    co_return written;
  }
  refcounts_->add_metadata(run->first);
  if (*old != 0) {
    refcounts_->remove_metadata(*old >> geometry_.cluster_bits);
    l2_cache_->drop(*old, geometry_.cluster_size());
    free_later(*old >> geometry_.cluster_bits, 1, false);
  }
  set_l1(l1_index, place | kCopied);
  co_return Result<void>{};
}

}  // namespace whistler::qcow2
