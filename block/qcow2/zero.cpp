// Zeroing and discarding: changes of the mapping rather than of data.
#include <algorithm>

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
  auto whole_begin = geometry_.cluster_end(offset);
  auto whole_end = end == size() ? geometry_.cluster_end(end) : geometry_.cluster_start(end);
  if (!by_mapping || whole_begin >= whole_end) {
    whole_begin = whole_end = end;
  }
  auto result = co_await note_change(offset, bytes);
  if (!result) {
    co_return result;
  }
  {
    auto hold = lock_clusters(offset, bytes, RangeLock::Mode::kExclusive);
    co_await hold;
    result = co_await zero_part(offset, whole_begin - offset);
    if (result && whole_begin < whole_end) {
      result = co_await zero_clusters(whole_begin, whole_end - whole_begin, flags.may_unmap, false);
    }
    if (result && whole_end < end) {
      result = co_await zero_part(whole_end, end - whole_end);
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
    // A range that has no table yet, and nothing behind it, is zero already.
    if ((l1_[geometry_.l1_index(offset)] & kOffsetMask) == 0 && (!backing_ || offset >= backing_->size())) {
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
      // Where nothing lies behind, "unallocated" says the same and leaves other programs more freedom.
      const bool backed = backing_ && offset < backing_->size();
      if (header_.version >= 3 && (backed || old != L2Entry{})) {
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
