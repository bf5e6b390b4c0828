#include <fmt/format.h>

#include <algorithm>

#include "block/gather.hpp"
#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/image.hpp"
#include "block/request.hpp"

namespace whistler::qcow2 {

namespace {
/// Pending frees are bounded, so that a guest that never flushes cannot make the file or the list grow for
/// ever.
constexpr std::size_t kMaxPendingFrees = 4096;
constexpr std::size_t kMaxTogether = 64;  ///< pieces of one request under way
constexpr std::uint64_t kMostBridged =
    16 * 1024;  ///< bytes of a write read over to have both its sides at once
}  // namespace

bool Image::within_bounds() const {
  return !l2_cache_->crowded() && !refcounts_->cache().crowded() && pending_frees_.size() < kMaxPendingFrees;
}

Result<void> Image::check_write(std::uint64_t offset, std::uint64_t bytes) const {
  if (corrupt_) {
    return fail(
        ErrorCode::kCorrupt,
        fmt::format("{}: the image was found damaged and is not written to any more: run check -r all",
                    name()));
  }
  return check_request(*this, offset, bytes, true);
}

Task<Result<void>> Image::keep_within_bounds() {
  if (!within_bounds()) {
    auto done = co_await flush_covering(false);
    co_return done;
  }
  co_return Result<void>{};
}

Task<Result<void>> Image::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto bytes = iovec_bytes(from);
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  if (bytes == 0) {
    co_return Result<void>{};
  }
  Result<void> result;
  if (bitmaps_->tracking()) {
    result = co_await bitmaps_->note(offset, bytes);
    if (!result) {
      co_return result;
    }
  }
  {
    auto hold = lock_clusters(offset, bytes, RangeLock::Mode::kShared);
    co_await hold;
    if (const auto host = known_place(offset, bytes)) {
      // Most of what a guest writes: as few layers as can be.
      data().debug_event(DebugEvent::kWriteAio);
      result = co_await data().writev(*host, from);
    } else if (auto in_place = co_await write_in_place(offset, from); !in_place) {
      result = std::unexpected(in_place.error());
    } else if (!*in_place) {
      hold.release();
      hold.set_mode(RangeLock::Mode::kExclusive);
      co_await hold;
      result = co_await write_exclusive(offset, from);
    }
  }
  if (!result && result.error().code == ErrorCode::kCorrupt) {
    co_await mark_corrupt(result.error());
  }
  if (result && flags.fua) {
    result = co_await flush();
  }
  co_return result;
}

std::optional<std::uint64_t> Image::known_place(std::uint64_t offset, std::uint64_t bytes) {
  if (encrypted()) {
    return std::nullopt;
  }
  const auto run = find_run_cached(offset, bytes);
  if (!run || !*run || (*run)->kind != Kind::kData || !(*run)->copied || (*run)->bytes != bytes ||
      guarded_cluster((*run)->host, bytes)) {
    return std::nullopt;
  }
  return (*run)->host;
}

Task<Result<bool>> Image::write_in_place(std::uint64_t offset, IoVec from) {
  const auto total = iovec_bytes(from);
  if (encrypted() && (offset | total) % kSector != 0) {
    co_return false;  // what a sector keeps is read, and written again, by who has it alone
  }
  Result<Run> run;
  // Only if all of it is in place: otherwise a part would be written twice.
  for (std::uint64_t done = 0; done < total; done += run->bytes) {
    run = co_await find_run(offset + done, total - done);
    if (!run) {
      co_return std::unexpected(run.error());
    }
    if (run->kind != Kind::kData || !run->copied) {
      co_return false;
    }
  }
  Gather pieces;
  Result<void> found;
  for (std::uint64_t done = 0; done < total && !pieces.failed(); done += run->bytes) {
    run = co_await find_run(offset + done, total - done);
    if (!run) {
      found = std::unexpected(run.error());
      break;
    }
    pieces.start(write_part(offset, run->host, run->bytes, from, done));
    co_await pieces.wait_below(kMaxTogether);
  }
  auto written = co_await pieces.wait();
  if (!written || !found) {
    co_return std::unexpected(!written ? written.error() : found.error());
  }
  co_return true;
}

/// Writes the `bytes` of the request at `offset` from `done` on.
Task<Result<void>> Image::write_part(std::uint64_t offset, std::uint64_t host, std::uint64_t bytes,
                                     IoVec from, std::uint64_t done) {
  const IoSlice piece(from, done, bytes);
  auto written = co_await write_host(offset + done, host, piece);
  co_return written;
}

Task<Result<void>> Image::write_host(std::uint64_t offset, std::uint64_t host, IoVec from, WriteFlags flags) {
  if (const auto cluster = guarded_cluster(host, iovec_bytes(from))) {
    co_return overlap(*cluster);
  }
  data().debug_event(DebugEvent::kWriteAio);
  Result<void> written;
  if (encrypted()) {
    written = co_await write_encrypted(offset, host, from);
  } else {
    written = co_await data().writev(host, from, flags);
  }
  co_return written;
}

Task<Result<void>> Image::write_exclusive(std::uint64_t offset, IoVec from) {
  auto room = co_await keep_within_bounds();
  if (!room) {
    co_return room;
  }
  const auto total = iovec_bytes(from);
  for (std::uint64_t done = 0; done < total;) {
    const IoSlice rest(from, done, total - done);
    auto bytes = co_await write_piece(offset + done, rest);
    if (!bytes) {
      co_return std::unexpected(bytes.error());
    }
    done += *bytes;
  }
  co_return Result<void>{};
}

/// Reads [copy_begin, begin) and [end, copy_end) around a write of [begin, end). `may_skip`: nothing is
/// brought along where all of it is zero.
Task<Result<Surroundings>> Image::read_surroundings(std::uint64_t copy_begin, std::uint64_t begin,
                                                    std::uint64_t end, std::uint64_t copy_end,
                                                    bool may_skip) {
  const auto before = static_cast<std::size_t>(begin - copy_begin);
  const auto behind = static_cast<std::size_t>(copy_end - end);
  auto head_zero = co_await known_zero(copy_begin, before);
  if (!head_zero) {
    co_return std::unexpected(head_zero.error());
  }
  auto tail_zero = co_await known_zero(end, behind);
  if (!tail_zero) {
    co_return std::unexpected(tail_zero.error());
  }
  if ((before == 0 && behind == 0) || (may_skip && *head_zero && *tail_zero)) {
    co_return Surroundings(0, 0, 0);
  }
  const bool read_head = before != 0 && !*head_zero;
  const bool read_tail = behind != 0 && !*tail_zero;
  // Around a small write one read is cheaper than two.
  const bool bridged = read_head && read_tail && end - begin <= kMostBridged;
  Surroundings around(before, bridged ? static_cast<std::size_t>(end - begin) : 0, behind);
  if (*head_zero) {
    std::ranges::fill(around.head, std::uint8_t{0});
  }
  if (*tail_zero) {
    std::ranges::fill(around.tail, std::uint8_t{0});
  }
  if (read_head || read_tail) {
    file_->debug_event(DebugEvent::kCowRead);
  }
  const iovec whole{around.memory.data(), static_cast<std::size_t>(copy_end - copy_begin)};
  const iovec head{around.head.data(), before};
  const iovec tail{around.tail.data(), behind};
  Gather reads;
  if (bridged) {
    reads.start(read_locked(copy_begin, {&whole, 1}));
  } else {
    if (read_head) {
      reads.start(read_locked(copy_begin, {&head, 1}));
    }
    if (read_tail) {
      reads.start(read_locked(end, {&tail, 1}));
    }
  }
  auto done = co_await reads.wait();
  if (!done) {
    co_return std::unexpected(done.error());
  }
  co_return around;
}

/// Writes the beginning of the request, as far as one stretch of host clusters takes it, and gives how many
/// bytes that was.
Task<Result<std::uint64_t>> Image::write_piece(std::uint64_t offset, IoVec from) {
  const auto total = iovec_bytes(from);
  auto pin = co_await writable_slice(offset);
  if (!pin) {
    co_return std::unexpected(pin.error());
  }
  const auto cluster_size = geometry_.cluster_size();
  const auto first_index = index_in_slice(offset);
  const auto wanted = std::min(geometry_.clusters_for(geometry_.in_cluster(offset) + total),
                               entries_in_slice() - first_index);

  // How many clusters from here on are treated alike: written where they are, or given new host clusters.
  struct Plan {
    bool in_place = false;     ///< the first cluster has a host cluster of its own
    bool has_content = false;  ///< some cluster at an end of the row has data that is to be kept whole
    std::uint64_t host = 0;
    std::uint64_t clusters = 0;
  } plan;
  for (; plan.clusters < wanted; ++plan.clusters) {
    const auto entry = load_l2(pin->data(), first_index + plan.clusters, geometry_);
    const auto mapping = geometry_.classify(entry, 0);
    const bool invalid = mapping.kind == Kind::kInvalid;
    if (invalid && plan.clusters == 0) {
      co_return bad_entry(offset, entry, true);
    }
    const bool compressed = mapping.kind == Kind::kCompressed;
    const auto host = compressed || invalid ? std::nullopt : geometry_.host_of(entry);
    const bool own = host.has_value() && (entry.value & kCopied) != 0;
    if (invalid || (plan.clusters != 0 && own != plan.in_place) ||
        (own && plan.clusters != 0 && *host != plan.host + plan.clusters * cluster_size)) {
      break;
    }
    if (own && plan.clusters == 0) {
      plan.host = *host;
      if (auto error = misplaced_in_raw_file(geometry_.cluster_start(offset), plan.host)) {
        co_return std::unexpected(std::move(*error));
      }
    }
    plan.in_place = own;
    plan.has_content = plan.has_content || compressed || (host.has_value() && !own);
  }
  ClusterRun run{.count = plan.clusters};
  if (!plan.in_place && geometry_.external_data) {
    plan.host = geometry_.cluster_start(offset);  // an external data file is laid out like the disk
  } else if (!plan.in_place) {
    auto allocated = co_await refcounts_->allocate(plan.clusters);
    if (!allocated) {
      co_return std::unexpected(allocated.error());
    }
    run = *allocated;
    plan.host = run.first << geometry_.cluster_bits;
  }
  const auto begin = geometry_.cluster_start(offset);
  const auto bytes = std::min(total, begin + run.count * cluster_size - offset);

  // Copy-on-write: what the request leaves out of the clusters (or subclusters) it touches goes along with
  // it.
  const bool whole_clusters = plan.has_content && !plan.in_place;
  const auto unit = whole_clusters ? cluster_size : geometry_.subcluster_size();
  const auto has_data = [&](std::uint64_t at) {  // in its place already, so nothing needs to be copied there
    const auto entry = load_l2(pin->data(), index_in_slice(at), geometry_);
    return plan.in_place && geometry_.classify(entry, geometry_.subcluster_index(at)).kind == Kind::kData;
  };
  const auto least = encrypted() ? kSector : 1;  // what is encrypted together
  const auto copy_begin = align_down(offset, has_data(offset) ? least : unit);
  const auto copy_end = align_up(offset + bytes, has_data(offset + bytes - 1) ? least : unit);
  const bool may_skip = run.fresh && !encrypted();  // a new piece of the file is zero
  auto around = co_await read_surroundings(copy_begin, offset, offset + bytes, copy_end, may_skip);
  Result<void> done;
  if (!around) {
    done = std::unexpected(around.error());
  } else {
    IoSlice all;
    if (!around->head.empty()) {
      all.append(around->head.data(), around->head.size());
    }
    all.append(from, 0, bytes);
    if (!around->tail.empty()) {
      all.append(around->tail.data(), around->tail.size());
    }
    const auto first = offset - around->head.size();
    // While a kernel worker copies this one, the next can read what surrounds it.
    const bool brought = !around->head.empty() || !around->tail.empty();
    const WriteFlags flags{.aside = brought && !requests_.at_most_one(), .fresh = run.fresh};
    done = co_await write_host(first, plan.host + first - begin, all, flags);
  }
  if (!done) {
    if (!plan.in_place && !geometry_.external_data) {
      // Nothing on disk refers to these clusters, so they are free at once.
      auto undone = co_await refcounts_->adjust(run.first, run.count, -1);
      static_cast<void>(undone);  // a leak at worst
    }
    co_return std::unexpected(done.error());
  }

  // The data is there: link it. From here to the end nothing waits.
  for (std::uint64_t i = 0; i < run.count && begin + i * cluster_size < offset + bytes; ++i) {
    const auto old = load_l2(pin->data(), first_index + i, geometry_);
    L2Entry entry{(plan.host + i * cluster_size) | kCopied, 0};
    if (geometry_.extended_l2) {
      const auto cluster = begin + i * cluster_size;
      const auto low = geometry_.subcluster_index(std::max(copy_begin, cluster));
      const auto last = std::min(copy_end, cluster + cluster_size) - 1;
      const auto high = geometry_.subcluster_index(last) + 1;
      const auto written = bits(~std::uint64_t{0}, 0, high) & ~bits(~std::uint64_t{0}, 0, low);
      const auto kept = whole_clusters ? 0 : old.bitmap & ~(written | written << kSubclusters);
      entry.bitmap = kept | written;
    }
    if (entry == old) {
      continue;
    }
    store_l2(pin->data(), first_index + i, geometry_, entry);
    pin->mark_dirty();
    if (!plan.in_place) {
      free_mapping_later(old, false);
    }
  }
  co_return bytes;
}

}  // namespace whistler::qcow2
