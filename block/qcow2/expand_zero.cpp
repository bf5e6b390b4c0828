// Version 2 has no clusters that read as zeroes: they become unallocated, or data where a backing file would
// show. One that has kept its host cluster keeps it, as data.
#include <algorithm>
#include <set>

#include "block/qcow2/amend.hpp"
#include "block/qcow2/snapshots.hpp"

namespace whistler::qcow2 {

namespace {

constexpr std::uint64_t kZeroChunk = 1024 * 1024;
/// Tables of snapshots that are changed between two flushes.
constexpr std::size_t kTablesAtOnce = 64;

}  // namespace

void Amender::count_expanded() { report(++expanded_, to_expand_); }

Task<Result<void>> Amender::expand_zero_clusters() {
  const auto size = image_.size();
  const auto table = image_.geometry_.l2_entries() << image_.geometry_.cluster_bits;
  for (std::uint64_t at = 0; at < size;) {
    auto extent = co_await image_.extent_at(at, std::min(size - at, std::uint64_t{1} << 30));
    if (!extent) {
      co_return std::unexpected(extent.error());
    }
    if (extent->kind == Kind::kZero) {
      auto done = co_await expand_zero_range(at, extent->bytes);
      if (!done) {
        co_return done;
      }
    }
    at += extent->bytes;
    while (expanded_ < at / table) {
      count_expanded();
    }
  }
  while (expanded_ < image_.header_.l1_size) {
    count_expanded();
  }
  co_return Result<void>{};
}

Task<Result<void>> Amender::expand_zero_range(std::uint64_t offset, std::uint64_t bytes) {
  const auto cluster = image_.geometry_.cluster_size();
  const auto backed = image_.backing_ ? std::min(image_.backing_->size(), offset + bytes) : 0;
  std::vector<std::uint8_t> zeroes(static_cast<std::size_t>(std::min(bytes, kZeroChunk)));
  for (const auto end = offset + bytes; offset < end;) {
    if (offset >= backed) {  // without the flag there are zeroes as well
      auto done = co_await clear_zero_entry(offset);
      if (!done) {
        co_return done;
      }
      offset = std::min(end, image_.geometry_.cluster_start(offset) + cluster);
      continue;
    }
    const iovec vec{zeroes.data(),
                    static_cast<std::size_t>(std::min<std::uint64_t>(zeroes.size(), end - offset))};
    auto done = co_await image_.writev(offset, {&vec, 1});
    if (!done) {
      co_return done;
    }
    offset += vec.iov_len;
  }
  co_return Result<void>{};
}

Task<Result<void>> Amender::clear_zero_entry(std::uint64_t offset) {
  auto hold = image_.lock_clusters(offset, 1, RangeLock::Mode::kExclusive);
  co_await hold;
  auto pin = co_await image_.writable_slice(offset);
  if (!pin) {
    co_return std::unexpected(pin.error());
  }
  const auto index = image_.index_in_slice(offset);
  const auto old = load_l2(pin->data(), index, image_.geometry_);
  const auto host = image_.geometry_.host_of(old);
  L2Entry plain;
  if (host && (old.value & kCopied) != 0 && image_.geometry_.in_cluster(*host) == 0) {
    // Nobody else has that cluster, and what is in it shows when the flag is gone.
    std::vector<std::uint8_t> zeroes(static_cast<std::size_t>(image_.geometry_.cluster_size()));
    const iovec vec{zeroes.data(), zeroes.size()};
    auto written = co_await image_.write_host(image_.geometry_.cluster_start(offset), *host, {&vec, 1});
    if (!written) {
      co_return written;
    }
    plain.value = *host | kCopied;
  }
  store_l2(pin->data(), index, image_.geometry_, plain);
  pin->mark_dirty();
  if (plain == L2Entry{}) {
    image_.free_mapping_later(old, true);
  }
  co_return Result<void>{};
}

Task<Result<void>> Amender::expand_zero_snapshots(std::vector<Snapshot> list) {
  // What the disk itself shares with snapshots has been expanded, and is the disk's own now.
  auto done = co_await image_.settle_counts();
  Snapshots snapshots(image_);
  std::set<std::uint64_t> seen;
  std::vector<ChangedTable> changed;
  for (const auto& snapshot : list) {
    const auto l1 = co_await snapshots.read_l1(snapshot);
    if (!l1) {
      co_return std::unexpected(l1.error());
    }
    for (std::uint64_t i = 0; i < l1->size() && done; ++i) {
      const auto table = (*l1)[static_cast<std::size_t>(i)] & kOffsetMask;
      if (table != 0 && seen.insert(table).second) {
        done = co_await expand_zero_table(
            table, (i * image_.geometry_.l2_entries()) << image_.geometry_.cluster_bits, changed);
        if (done && changed.size() >= kTablesAtOnce) {
          done = co_await write_tables(changed);
        }
      }
      count_expanded();
    }
  }
  if (done) {
    done = co_await write_tables(changed);
  }
  image_.resume_lazy();
  co_return done;
}

Task<Result<void>> Amender::expand_zero_table(std::uint64_t table, std::uint64_t guest,
                                              std::vector<ChangedTable>& changed) {
  const auto& geometry = image_.geometry_;
  Snapshots snapshots(image_);
  auto bytes = co_await snapshots.read(table, geometry.cluster_size());
  if (!bytes) {
    co_return std::unexpected(bytes.error());
  }
  // As many snapshots share the table, and all it names.
  const auto sharers = co_await image_.refcounts_->get(table >> geometry.cluster_bits);
  if (!sharers) {
    co_return std::unexpected(sharers.error());
  }
  ChangedTable result{
      .offset = table, .sharers = static_cast<std::int64_t>(*sharers), .bytes = {}, .freed = {}};
  for (std::uint64_t i = 0; i < geometry.l2_entries(); ++i, guest += geometry.cluster_size()) {
    const auto entry = load_l2(bytes->data(), i, geometry);
    if ((entry.value & kCompressedFlag) != 0 || (entry.value & kZeroFlag) == 0) {
      continue;
    }
    if (const auto host = geometry.host_of(entry)) {
      result.freed.push_back(*host >> geometry.cluster_bits);
    }
    L2Entry plain;
    if (image_.backing_ && guest < image_.backing_->size()) {
      const auto host = co_await allocate_zeroes(guest, result.sharers);
      if (!host) {
        co_return std::unexpected(host.error());
      }
      plain.value = *host | (result.sharers == 1 ? kCopied : 0);
    }
    store_l2(bytes->data(), i, geometry, plain);
    result.bytes = *bytes;
  }
  if (!result.bytes.empty()) {
    changed.push_back(std::move(result));
  }
  co_return Result<void>{};
}

Task<Result<std::uint64_t>> Amender::allocate_zeroes(std::uint64_t guest, std::int64_t count) {
  const auto& geometry = image_.geometry_;
  const auto run = co_await image_.refcounts_->allocate(1);
  if (!run) {
    co_return std::unexpected(run.error());
  }
  Result<void> done;
  if (count > 1) {
    done = co_await image_.refcounts_->adjust(run->first, 1, count - 1);
  }
  const auto host = run->first << geometry.cluster_bits;
  std::vector<std::uint8_t> zeroes(static_cast<std::size_t>(geometry.cluster_size()));
  const iovec vec{zeroes.data(), zeroes.size()};
  if (done) {
    done = co_await image_.write_host(guest, host, {&vec, 1});
  }
  if (!done) {
    co_return std::unexpected(done.error());
  }
  co_return host;
}

Task<Result<void>> Amender::write_tables(std::vector<ChangedTable>& changed) {
  Snapshots snapshots(image_);
  // The zeroes and the counts of their clusters first, then the tables, and only then what they no longer
  // name.
  auto done = co_await image_.settle_counts();
  for (const auto& table : changed) {
    if (done) {
      done = co_await snapshots.write(table.offset, table.bytes);
      image_.l2_cache_->drop(table.offset, image_.geometry_.cluster_size());
    }
  }
  if (done) {
    done = co_await image_.file_->flush();
  }
  for (const auto& table : changed) {
    for (const auto cluster : table.freed) {
      if (done) {
        done = co_await image_.refcounts_->adjust(cluster, 1, -table.sharers);
      }
    }
  }
  changed.clear();
  co_return done;
}

}  // namespace whistler::qcow2
