// Zeroing and discarding: changes of the mapping rather than of data.
#include <algorithm>

#include "block/chain_status.hpp"
#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

namespace {
constexpr std::uint64_t kZeroChunk = 1024 * 1024;
}

Task<Result<void>> Image::discard(std::uint64_t offset, std::uint64_t bytes) {
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  // Only whole clusters can be given back; the last one of the disk counts as whole.
  const auto begin = geometry_.cluster_end(offset);
  const auto end =
      offset + bytes == size() ? geometry_.cluster_end(size()) : geometry_.cluster_start(offset + bytes);
  // Version 2 has no zero flag: with a backing file its old content would show through again. A raw external
  // data file must keep showing what the guest sees.
  if (!options_.discard || begin >= end || (header_.version < 3 && backing_) ||
      (header_.autoclear & kRawExternalData) != 0) {
    co_return Result<void>{};
  }
  auto noted = co_await note_change(begin, end - begin);
  if (!noted) {
    co_return noted;
  }
  auto hold = lock_clusters(begin, end - begin, RangeLock::Mode::kExclusive);
  co_await hold;
  auto result = co_await zero_clusters(begin, end - begin, true, true);
  if (!result && result.error().code == ErrorCode::kCorrupt) {
    co_await mark_corrupt(result.error());
  }
  co_return result;
}

Task<Result<void>> Image::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  if (bytes == 0) {
    co_return Result<void>{};
  }
  const auto end = offset + bytes;
  // Without a zero flag, an unallocated cluster is zero only where nothing lies behind it.
  const bool by_mapping = (header_.version >= 3 || !backing_) && (header_.autoclear & kRawExternalData) == 0;
  auto result = co_await note_change(offset, bytes);
  if (!result) {
    co_return result;
  }
  {
    auto hold = lock_clusters(offset, bytes, RangeLock::Mode::kExclusive);
    co_await hold;
    if (by_mapping) {
      result = co_await zero_by_mapping(offset, end, flags.may_unmap);
    } else {
      result = co_await zero_part(offset, bytes);
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

Task<Result<void>> Image::zero_by_mapping(std::uint64_t offset, std::uint64_t end, bool unmap) {
  const auto unit = header_.version >= 3 ? geometry_.subcluster_size() : geometry_.cluster_size();
  auto begin = align_up(offset, unit);
  auto limit = end == size() ? align_up(end, unit) : align_down(end, unit);
  // A unit of which the rest is zero already becomes a whole zero one: no data is written for it.
  if (const auto head = offset % unit; head != 0) {
    const auto zero = co_await reads_zero(offset - head, head);
    if (!zero) {
      co_return std::unexpected(zero.error());
    }
    begin -= *zero ? unit : 0;
  }
  if (const auto tail = end == size() ? 0 : end % unit; tail != 0) {
    const auto zero = co_await reads_zero(end, std::min(unit - tail, size() - end));
    if (!zero) {
      co_return std::unexpected(zero.error());
    }
    limit += *zero ? unit : 0;
  }
  if (begin >= limit) {
    auto result = co_await zero_part(offset, end - offset);
    co_return result;
  }
  Result<void> result;
  if (offset < begin) {
    result = co_await zero_part(offset, begin - offset);
  }
  const auto first_whole = std::min(geometry_.cluster_end(begin), limit);
  const auto last_whole = std::max(geometry_.cluster_start(limit), first_whole);
  if (result && begin < first_whole) {
    result = co_await zero_subclusters(begin, first_whole - begin);
  }
  if (result && first_whole < last_whole) {
    result = co_await zero_clusters(first_whole, last_whole - first_whole, unmap, false);
  }
  if (result && last_whole < limit) {
    result = co_await zero_subclusters(last_whole, limit - last_whole);
  }
  if (result && limit < end) {
    result = co_await zero_part(limit, end - limit);
  }
  co_return result;
}

Task<Result<bool>> Image::reads_zero(std::uint64_t offset, std::uint64_t bytes) {
  while (bytes != 0) {
    const auto run = co_await find_run(offset, bytes);
    if (!run) {
      co_return std::unexpected(run.error());
    }
    auto length = run->bytes;
    if (run->kind == Kind::kUnallocated && backing_ && offset < backing_->size()) {
      length = std::min(length, backing_->size() - offset);
      const auto below = co_await chain_status(*backing_, nullptr, offset, length);
      if (!below) {
        co_return std::unexpected(below.error());
      }
      if (!below->zero) {
        co_return false;
      }
      length = below->bytes;
    } else if (run->kind != Kind::kZero && run->kind != Kind::kUnallocated) {
      co_return false;
    }
    offset += length;
    bytes -= length;
  }
  co_return true;
}

Task<Result<void>> Image::zero_subclusters(std::uint64_t offset, std::uint64_t bytes) {
  auto room = co_await keep_within_bounds();
  if (!room) {
    co_return room;
  }
  auto pin = co_await writable_slice(offset);
  if (!pin) {
    co_return std::unexpected(pin.error());
  }
  const auto index = index_in_slice(offset);
  auto entry = load_l2(pin->data(), index, geometry_);
  if ((entry.value & kCompressedFlag) != 0) {  // has no subclusters
    pin = SliceCache::Pin();
    auto written = co_await zero_part(offset, bytes);
    co_return written;
  }
  const auto first = geometry_.subcluster_index(offset);
  for (std::uint64_t i = 0; i < bytes / geometry_.subcluster_size(); ++i) {
    entry.bitmap |= std::uint64_t{1} << (first + i + kSubclusters);
    entry.bitmap &= ~(std::uint64_t{1} << (first + i));
  }
  store_l2(pin->data(), index, geometry_, entry);
  pin->mark_dirty();
  co_return Result<void>{};
}

Task<Result<void>> Image::zero_part(std::uint64_t offset, std::uint64_t bytes) {
  if (bytes == 0) {
    co_return Result<void>{};
  }
  if ((header_.autoclear & kRawExternalData) == 0) {
    auto zero = co_await known_zero(offset, bytes);
    if (!zero) {
      co_return std::unexpected(zero.error());
    }
    if (*zero) {
      co_return Result<void>{};
    }
  }
  std::vector<std::uint8_t> zeroes(static_cast<std::size_t>(std::min(bytes, kZeroChunk)));
  while (bytes != 0) {
    const iovec vec{zeroes.data(), static_cast<std::size_t>(std::min<std::uint64_t>(bytes, zeroes.size()))};
    auto written = co_await write_exclusive(offset, {&vec, 1});
    if (!written) {
      co_return written;
    }
    offset += vec.iov_len;
    bytes -= vec.iov_len;
  }
  co_return Result<void>{};
}

/// [offset, offset + bytes) are whole clusters, locked.
Task<Result<void>> Image::zero_clusters(std::uint64_t offset, std::uint64_t bytes, bool unmap,
                                        bool is_discard) {
  const auto cluster_size = geometry_.cluster_size();
  const auto end = offset + bytes;
  while (offset < end) {
    auto room = co_await keep_within_bounds();
    if (!room) {
      co_return room;
    }
    // A range that has no table yet, and nothing behind it, is zero already; only a write of zeroes is to
    // show that somebody wrote.
    const bool leave_unallocated = is_discard || header_.version < 3;
    if (leave_unallocated && (l1_[geometry_.l1_index(offset)] & kOffsetMask) == 0 &&
        (!backing_ || offset >= backing_->size())) {
      offset = std::min(end, align_down(offset, geometry_.l2_coverage()) + geometry_.l2_coverage());
      continue;
    }
    auto pin = co_await writable_slice(offset);
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    for (auto index = index_in_slice(offset); index < entries_in_slice() && offset < end;
         ++index, offset += cluster_size) {
      const auto old = load_l2(pin->data(), index, geometry_);
      const bool compressed = (old.value & kCompressedFlag) != 0;
      const auto host = compressed ? std::nullopt : geometry_.host_of(old);
      const bool keep_host = !unmap && header_.version >= 3 && host && (old.value & kCopied) != 0;
      L2Entry entry;
      if (keep_host) {
        entry.value = *host | kCopied;
      }
      const bool backed = backing_ && offset < backing_->size();
      if (!leave_unallocated || (header_.version >= 3 && (backed || old != L2Entry{}))) {
        (geometry_.extended_l2 ? entry.bitmap : entry.value) |=
            geometry_.extended_l2 ? ~std::uint64_t{0} << kSubclusters : kZeroFlag;
      }
      if (entry == old) {
        continue;
      }
      store_l2(pin->data(), index, geometry_, entry);
      pin->mark_dirty();
      if (!keep_host) {
        free_mapping_later(old, is_discard || unmap);
      }
    }
  }
  co_return Result<void>{};
}

}  // namespace whistler::qcow2
