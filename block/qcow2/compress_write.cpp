#include <fmt/format.h>

#include "block/iovec.hpp"
#include "block/qcow2/compression.hpp"
#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

Task<Result<void>> Image::write_compressed(std::uint64_t offset, IoVec from) {
  const auto bytes = iovec_bytes(from);
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  if (geometry_.in_cluster(offset) != 0 || (bytes != geometry_.cluster_size() && offset + bytes != size())) {
    co_return fail(
        ErrorCode::kInvalid,
        fmt::format("{}: {} bytes at offset {} are not one whole cluster, so they cannot be compressed",
                    name(), bytes, offset));
  }
  if (encrypted()) {
    co_return fail(ErrorCode::kUnsupported, "Compression and encryption not supported at the same time");
  }
  std::vector<std::uint8_t> cluster(static_cast<std::size_t>(geometry_.cluster_size()));
  copy_from_iovec(std::span(cluster).first(static_cast<std::size_t>(bytes)), from, 0);
  const auto packed = compress_cluster(header_.compression, cluster);
  Result<void> result;
  if (packed.empty() || geometry_.external_data) {
    result = co_await writev(offset, from);
  } else {
    result = co_await write_packed(offset, packed);
  }
  co_return result;
}

Task<Result<void>> Image::write_packed(std::uint64_t offset, std::span<const std::uint8_t> packed) {
  if (auto ok = check_write(offset, 1); !ok) {
    co_return ok;
  }
  if (packed.empty() || packed.size() >= geometry_.cluster_size() || geometry_.in_cluster(offset) != 0 ||
      geometry_.external_data || encrypted()) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("{}: {} bytes do not make a compressed cluster at offset {}", name(),
                               packed.size(), offset));
  }
  auto noted = co_await note_change(offset, geometry_.cluster_size());
  if (!noted) {
    co_return noted;
  }
  auto hold = lock_clusters(offset, 1, RangeLock::Mode::kExclusive);
  co_await hold;
  auto room = co_await keep_within_bounds();
  if (!room) {
    co_return room;
  }
  auto pin = co_await writable_slice(offset);
  if (!pin) {
    co_return std::unexpected(pin.error());
  }
  auto place = co_await refcounts_->allocate_bytes(packed.size());
  if (!place) {
    if (place.error().code == ErrorCode::kCorrupt) {
      co_await mark_corrupt(place.error());
    }
    co_return std::unexpected(place.error());
  }
  const L2Entry entry{geometry_.compressed_entry(*place, packed.size()), 0};
  const iovec vec{const_cast<std::uint8_t*>(packed.data()), packed.size()};
  file_->debug_event(DebugEvent::kWriteCompressed);
  auto written = co_await file_->writev(*place, {&vec, 1});
  if (!written) {
    const auto first = *place >> geometry_.cluster_bits;
    const auto last = (*place + packed.size() - 1) >> geometry_.cluster_bits;
    auto undone = co_await refcounts_->adjust(first, last - first + 1, -1);
    static_cast<void>(undone);  // a leak at worst
    co_return written;
  }
  // The last sector's padding belongs to the extent too: it must not lie in a cluster that is not counted for
  // it. It cannot, for a sector never crosses a cluster.
  const auto index = index_in_slice(offset);
  const auto old = load_l2(pin->data(), index, geometry_);
  store_l2(pin->data(), index, geometry_, entry);
  pin->mark_dirty();
  free_mapping_later(old, false);
  co_return Result<void>{};
}

}  // namespace whistler::qcow2
