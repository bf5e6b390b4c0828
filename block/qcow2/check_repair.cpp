// Comparing the uses that a check has counted with the refcounts, and setting right what is wrong.
#include <algorithm>
#include <limits>

#include "block/qcow2/checker.hpp"

namespace whistler::qcow2 {

namespace {
/// Clusters behind the end of the file whose counts are looked at: a crash may have left some, where new ones
/// were given out. What a hostile table says of more has no end.
constexpr std::uint64_t kBeyondTheEnd = 65536;
}  // namespace

/// A cluster that is in use but counts as free may have been handed out twice already: then the refcounts
/// are not to be trusted, and are made anew from what is in use.
Task<Result<void>> Checker::check_refcounts() {
  const auto before = report_;
  auto done = co_await compare_refcounts(Repair::kNone);
  if (!done || repair_ == Repair::kNone) {
    co_return done;
  }
  if (needs_rebuild_ && !fix(Repair::kAll)) {
    for (const auto& message : report_.messages) {
      fmt::print(stderr, "{}\n", message);  // the report does not get out
    }
    fmt::print(stderr, "ERROR need to rebuild refcount structures\n");
    co_return fail(
        ErrorCode::kCorrupt,
        fmt::format("{}: the refcounts are damaged, which only check -r all repairs", image_.name()),
        "Input/output error");
  }
  if (needs_rebuild_) {
    done = co_await rebuild();
    co_return done;
  }
  if (report_.leaks != 0 || report_.corruptions != 0) {
    report_.leaks = before.leaks;
    report_.corruptions = before.corruptions;
    done = co_await compare_refcounts(repair_);
  }
  co_return done;
}

Task<Result<void>> Checker::rebuild() {
  say("Rebuilding refcount structure");
  const auto found = report_;
  // The old table and blocks count as used until the header names the new ones: they are not written over.
  const auto counts = counts_;
  auto done = co_await image_.refcounts_->rebuild(counts.size(), [&counts](std::uint64_t cluster) {
    return std::uint64_t{counts[static_cast<std::size_t>(cluster)]};
  });
  if (!done) {
    co_return done;
  }
  report_.corruptions = 0;
  report_.leaks = 0;
  quiet_ = true;  // all of this has been said
  done = co_await count_all();
  quiet_ = false;
  if (!done) {
    co_return done;
  }
  const auto left = report_;
  done = co_await compare_refcounts(Repair::kLeaks);  // frees the old structure
  const bool sound = !needs_rebuild_ && report_.corruptions == left.corruptions;
  report_.corruptions = left.corruptions;
  report_.leaks = left.leaks;
  report_.leaks_fixed = left.leaks_fixed;
  if (done && !sound) {
    co_return fail(ErrorCode::kCorrupt,
                   fmt::format("{}: the refcounts made anew are not right either", image_.name()));
  }
  report_.corruptions_fixed += found.corruptions - std::min(found.corruptions, left.corruptions);
  report_.leaks_fixed += found.leaks - std::min(found.leaks, left.leaks);
  co_return done;
}

Task<Result<void>> Checker::compare_refcounts(Repair repair) {
  auto& refcounts = *image_.refcounts_;
  const auto per_slice = refcounts.counts_per_slice();
  const auto covered = std::uint64_t{refcounts.table().size()} << geometry_.refcount_block_bits();
  const auto end = std::max<std::uint64_t>(counts_.size(), std::min(covered, counts_.size() + kBeyondTheEnd));
  for (std::uint64_t first = 0; first < end; first += per_slice) {
    const auto last = std::min(end, first + per_slice);
    if (!refcounts.covers(first)) {
      for (auto cluster = first; cluster < std::min<std::uint64_t>(last, counts_.size()); ++cluster) {
        static_cast<void>(compare_refcount(cluster, 0, Repair::kNone));
      }
      continue;
    }
    auto pin = co_await refcounts.slice_of(first);
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    for (auto cluster = skip_equal(pin->data(), first, first, last); cluster < last;
         cluster = skip_equal(pin->data(), first, cluster + 1, last)) {
      const auto stored = load_refcount(pin->data(), cluster - first, geometry_.refcount_order);
      if (compare_refcount(cluster, stored, repair)) {
        auto set = co_await refcounts.set(cluster, uses(cluster));
        if (!set) {
          co_return set;
        }
      }
    }
  }
  co_return Result<void>{};
}

/// The first cluster, from `cluster` on and before `last`, whose count in a slice that starts with cluster
/// `first` is not what was counted.
std::uint64_t Checker::skip_equal(const std::uint8_t* slice, std::uint64_t first, std::uint64_t cluster,
                                  std::uint64_t last) {
  const auto end = std::min<std::uint64_t>(last, counts_.size());
  for (; cluster < end; ++cluster) {
    const auto counted = counts_[static_cast<std::size_t>(cluster)];
    if (load_refcount(slice, cluster - first, geometry_.refcount_order) != counted) {
      return cluster;
    }
    if (counted != 0) {
      report_.image_end_offset = (cluster + 1) << geometry_.cluster_bits;
    }
  }
  return cluster;
}

/// Notes a count that is wrong; true if it shall be set right.
bool Checker::compare_refcount(std::uint64_t cluster, std::uint64_t stored, Repair repair) {
  constexpr Count kMax = std::numeric_limits<Count>::max();
  const auto counted = uses(cluster);
  if (counted != 0 || (stored != 0 && cluster < counts_.size())) {
    report_.image_end_offset = (cluster + 1) << geometry_.cluster_bits;
  }
  if (stored == counted || (counted == kMax && stored >= kMax)) {
    return false;
  }
  const bool too_low = stored < counted;
  const bool fixing = stored != 0 && repair >= (too_low ? Repair::kAll : Repair::kLeaks);
  needs_rebuild_ = needs_rebuild_ || stored == 0;
  auto& counter = too_low ? (fixing ? report_.corruptions_fixed : report_.corruptions)
                          : (fixing ? report_.leaks_fixed : report_.leaks);
  note(counter, "{} cluster {} refcount={} reference={}",
       fixing    ? "Repairing"
       : too_low ? "ERROR"
                 : "Leaked",
       cluster, stored, counted);
  return fixing;
}

/// Whether clusters are marked as written in place where, and only where, the stored count says that nobody
/// else uses them. Who asked for leaks alone gets this repaired too where all counts are right.
Task<Result<void>> Checker::check_copied_flags() {
  const bool counts_are_right = report_.corruptions == 0 && report_.leaks == 0;
  const bool repair = fix(Repair::kAll) || (fix(Repair::kLeaks) && counts_are_right);
  for (std::size_t i = 0; i < image_.l1_.size(); ++i) {
    const auto entry = image_.l1_[i];
    const auto table = entry & kOffsetMask;
    if (table == 0 || geometry_.in_cluster(table) != 0 || table >= image_.file_->size()) {
      continue;
    }
    auto count_of_it = co_await image_.refcounts_->get(table >> geometry_.cluster_bits);
    if (!count_of_it) {
      co_return std::unexpected(count_of_it.error());
    }
    const bool sole = *count_of_it == 1;
    if (sole != ((entry & kCopied) != 0)) {
      note(repair ? report_.corruptions_fixed : report_.corruptions,
           "{} OFLAG_COPIED L2 cluster: l1_index={} l1_entry={:x} refcount={}",
           repair ? "Repairing" : "ERROR", i, entry, *count_of_it);
      if (repair) {
        image_.set_l1(i, table | (sole ? kCopied : 0));
      }
    }
    auto done = co_await check_copied_l2(i, repair);
    if (!done) {
      co_return done;
    }
  }
  co_return Result<void>{};
}

/// The first entry of an L2 table, from `index` on, that is not plainly right by the counts of slice number
/// `slice`. Apart from the coroutine, which would keep all of this in memory: nearly all entries end here.
std::uint64_t Checker::skip_agreeing(const std::vector<std::uint8_t>& table, std::uint64_t index,
                                     const std::uint8_t* counts, std::uint64_t slice) const {
  const auto per_slice = image_.refcounts_->counts_per_slice();
  const auto entries = geometry_.l2_entries();
  for (; index < entries; ++index) {
    const auto value = load_l2(table.data(), index, geometry_).value;
    if (value == 0) {
      continue;
    }
    const auto cluster = (value & kOffsetMask) >> geometry_.cluster_bits;
    const auto in_slice = cluster - slice * per_slice;
    if ((value & kCompressedFlag) != 0 || geometry_.in_cluster(value & kOffsetMask) != 0 ||
        in_slice >= per_slice ||
        (load_refcount(counts, in_slice, geometry_.refcount_order) == 1) != ((value & kCopied) != 0)) {
      break;
    }
  }
  return index;
}

Task<Result<void>> Checker::check_copied_l2(std::uint64_t l1_index, bool repair) {
  const auto table = image_.l1_[l1_index] & kOffsetMask;
  auto bytes = co_await read(table, geometry_.cluster_size());
  if (!bytes) {
    co_return std::unexpected(bytes.error());
  }
  auto& refcounts = *image_.refcounts_;
  const auto per_slice = refcounts.counts_per_slice();
  SliceCache::Pin pin;  // neighbours have their counts next to each other
  std::uint64_t pinned = 0;
  bool changed = false;
  for (std::uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
    if (pin) {
      i = skip_agreeing(*bytes, i, pin.data(), pinned);
      if (i == geometry_.l2_entries()) {
        break;
      }
    }
    auto entry = load_l2(bytes->data(), i, geometry_);
    const auto host = geometry_.host_of(entry);
    if ((entry.value & kCompressedFlag) != 0 || !host || geometry_.in_cluster(*host) != 0 ||
        *host > kMaxHostOffset) {
      continue;  // no refcount to agree with
    }
    // What is in an external data file has no count: nobody else uses it.
    const auto cluster = *host >> geometry_.cluster_bits;
    const bool counts = !geometry_.external_data && refcounts.covers(cluster);
    if (counts && (!pin || pinned != cluster / per_slice)) {
      auto loaded = co_await refcounts.slice_of(cluster);
      if (!loaded) {
        co_return std::unexpected(loaded.error());
      }
      pin = std::move(*loaded);
      pinned = cluster / per_slice;
    }
    const auto count_of_it = counts ? load_refcount(pin.data(), cluster % per_slice, geometry_.refcount_order)
                                    : std::uint64_t{geometry_.external_data ? 1U : 0U};
    const bool sole = count_of_it == 1;
    if (sole == ((entry.value & kCopied) != 0)) {
      continue;
    }
    note(repair ? report_.corruptions_fixed : report_.corruptions,
         "{} OFLAG_COPIED data cluster: l2_entry={:x} refcount={}", repair ? "Repairing" : "ERROR",
         entry.value, count_of_it);
    entry.value = (entry.value & ~kCopied) | (sole ? kCopied : 0);
    store_l2(bytes->data(), i, geometry_, entry);
    changed = true;
  }
  if (changed && repair) {
    image_.l2_cache_->drop(table, geometry_.cluster_size());
    const iovec vec{bytes->data(), bytes->size()};
    auto written = co_await image_.file_->writev(table, {&vec, 1});
    co_return written;
  }
  co_return Result<void>{};
}

}  // namespace whistler::qcow2
