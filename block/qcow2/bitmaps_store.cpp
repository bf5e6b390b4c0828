// Storing dirty bitmaps: new clusters, then the header, then the old clusters are free.
#include <algorithm>

#include "block/iovec.hpp"
#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

void Bitmaps::note_old_clusters(const Entry& entry, std::vector<Run>& old) const {
  const auto bits = image_.geometry_.cluster_bits;
  if (entry.disk.table_offset != 0 && entry.disk.table_entries != 0) {
    old.push_back({entry.disk.table_offset >> bits,
                   image_.geometry_.clusters_for(std::uint64_t{entry.disk.table_entries} * 8)});
  }
  for (const auto value : entry.table) {
    if ((value & kOffsetMask) != 0) {
      old.push_back({(value & kOffsetMask) >> bits, 1});
    }
  }
}

/// Writes `bytes` into neighbouring new clusters, and gives the file offset. What is behind them in the last
/// cluster means nothing.
Task<Result<std::uint64_t>> Bitmaps::write_new(std::span<const std::uint8_t> bytes, std::vector<Run>& taken) {
  const auto& geometry = image_.geometry_;
  auto run = co_await image_.refcounts_->allocate_row(geometry.clusters_for(bytes.size()));
  if (!run) {
    co_return std::unexpected(run.error());
  }
  taken.push_back({run->first, run->count});
  const auto place = run->first << geometry.cluster_bits;
  const iovec vec{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  auto written = co_await image_.file_->writev(place, {&vec, 1});
  if (!written) {
    co_return std::unexpected(written.error());
  }
  co_return place;
}

Task<Result<void>> Bitmaps::write_bits(Entry& entry, DiskBitmap& disk, std::vector<std::uint64_t>& table,
                                       std::vector<Run>& taken) {
  const auto raw = entry.bits->raw();
  const auto cluster_size = static_cast<std::size_t>(image_.geometry_.cluster_size());
  std::vector<std::uint8_t> cluster(cluster_size);  // bits are stored by whole clusters
  for (std::size_t at = 0; at < raw.size(); at += cluster_size) {
    const auto piece = raw.subspan(at, std::min(cluster_size, raw.size() - at));
    std::uint64_t place = 0;
    if (!is_zero(piece)) {
      std::fill(std::copy(piece.begin(), piece.end(), cluster.begin()), cluster.end(), 0);
      auto written = co_await write_new(cluster, taken);
      if (!written) {
        co_return std::unexpected(written.error());
      }
      place = *written;
    }
    table.push_back(place);
  }
  std::vector<std::uint8_t> encoded(std::max<std::size_t>(table.size(), 1) * 8);
  for (std::size_t i = 0; i < table.size(); ++i) {
    store_be<std::uint64_t>(&encoded[i * 8], table[i]);
  }
  auto place = co_await write_new(encoded, taken);
  if (!place) {
    co_return std::unexpected(place.error());
  }
  disk.table_offset = *place;
  disk.table_entries = static_cast<std::uint32_t>(table.size());
  co_return Result<void>{};
}

/// The mutex is held. A note() that comes meanwhile waits for it, and begins anew.
Task<Result<void>> Bitmaps::store() {
  const bool begun = std::exchange(begun_, false);
  std::vector<bool> written(entries_.size());
  std::vector<Run> taken;
  std::vector<Run> old = removed_;
  std::vector<DiskBitmap> disks;
  std::vector<std::vector<std::uint64_t>> tables(entries_.size());
  const auto before = bitmap_extension(image_.header_);
  Result<void> done;
  for (std::size_t i = 0; done && i < entries_.size(); ++i) {
    auto& entry = entries_[i];
    disks.push_back(entry.disk);
    if (entry.bits && std::exchange(entry.changed, false)) {
      written[i] = true;
      done = co_await write_bits(entry, disks.back(), tables[i], taken);
      note_old_clusters(entry, old);
    }
  }
  std::optional<BitmapExtension> extension;
  if (done && !disks.empty()) {
    const auto raw = encode_bitmap_directory(disks);
    if (raw.size() > kMaxBitmapDirectoryBytes) {
      done = fail(ErrorCode::kNoSpace, "Not enough space in the bitmap directory");
    } else {
      auto place = co_await write_new(raw, taken);
      if (place) {
        extension = {static_cast<std::uint32_t>(disks.size()), raw.size(), *place};
      } else {
        done = std::unexpected(place.error());
      }
    }
  }
  if (done) {
    done = co_await image_.flush_covering(true);  // before the header names any of it
  }
  if (!done) {
    for (const auto& run : taken) {
      auto undone = co_await image_.refcounts_->adjust(run.first, run.count, -1);
      static_cast<void>(undone);  // a leak at worst
    }
  }
  if (done) {
    done = co_await switch_directory(extension);
  }
  if (!done) {
    begun_ = begun;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      entries_[i].changed = entries_[i].changed || written[i];
    }
    co_return done;  // which directory the header names is unknown: neither is given away
  }
  if (before) {
    old.push_back({before->directory_offset >> image_.geometry_.cluster_bits,
                   image_.geometry_.clusters_for(before->directory_bytes)});
  }
  for (const auto& run : old) {
    image_.free_later(run.first, run.count, false);
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    auto& entry = entries_[i];
    entry.disk = disks[i];
    if (written[i]) {
      entry.table = std::move(tables[i]);
    }
  }
  removed_.clear();
  update_tracking();
  co_return done;
}

/// While the header changes, its autoclear bit says that the extension is not to be relied on.
Task<Result<void>> Bitmaps::switch_directory(std::optional<BitmapExtension> extension) {
  auto& header = image_.header_;
  Result<void> done;
  if ((header.autoclear & kBitmapsValid) != 0) {
    header.autoclear &= ~kBitmapsValid;
    done = co_await image_.write_header_fields();
  }
  if (done) {
    auto changed = header;
    changed.set_extension(kBitmapsExtension,
                          extension ? encode_bitmap_extension(*extension).data : std::vector<std::uint8_t>{});
    done = co_await image_.replace_extensions(std::move(changed.extensions));
  }
  if (done && extension) {
    header.autoclear |= kBitmapsValid;
    done = co_await image_.write_header_fields();
  }
  co_return done;
}

}  // namespace whistler::qcow2
