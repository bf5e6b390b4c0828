#include "block/qcow2/compact.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "block/iovec.hpp"
#include "block/qcow2/check.hpp"
#include "block/qcow2/snapshots.hpp"

namespace whistler::qcow2 {

namespace {
constexpr std::uint64_t kReadBytes = 1024 * 1024;
constexpr int kMaxPasses = 4;
}  // namespace

Task<Result<CompactReport>> compact_image(Image& image, CompactOptions options) {
  Compactor compactor(image, std::move(options));
  auto report = co_await compactor.run();
  co_return report;
}

void Compactor::show(double part, double whole, double from, double to) const {
  if (options_.progress && whole > 0) {
    options_.progress(from + (to - from) * part / whole);
  }
}

Task<Result<CompactReport>> Compactor::run() {
  report_.bytes_before = image_.file_->size();
  Result<void> done;
  if (!options_.dry_run) {
    done = co_await image_.settle_counts();  // lazy refcounts would leave them in memory
  }
  if (done) {
    done = co_await free_leaks();
  }
  if (done && !geometry_.external_data) {
    done = co_await drop_zeroes();
  }
  if (done && options_.dry_run) {
    auto used = co_await count_used();
    if (!used) {
      co_return std::unexpected(used.error());
    }
    const auto gone = std::min(*used, report_.leaks + report_.zero_clusters);
    report_.bytes_after = std::min(report_.bytes_before, (*used - gone) << geometry_.cluster_bits);
    co_return report_;
  }
  for (int pass = 0; done && pass < kMaxPasses; ++pass) {
    const auto before = image_.file_->size();
    done = co_await move_down();
    if (done && image_.file_->size() >= before) {
      break;  // nothing more to be won
    }
  }
  if (done) {
    done = co_await punch_holes();
  }
  image_.resume_lazy();
  if (!done) {
    co_return std::unexpected(done.error());
  }
  show(1, 1, 0, 100);
  report_.bytes_after = image_.file_->size();
  co_return report_;
}

/// Writes out everything, and the counts of what that frees.
Task<Result<void>> Compactor::settle() {
  auto done = co_await image_.refcounts_->release_tail();
  for (int i = 0; i < 2 && done; ++i) {
    done = co_await image_.flush_covering(true);
  }
  co_return done;
}

Task<Result<void>> Compactor::free_leaks() {
  auto report = co_await check_image(image_, options_.dry_run ? Repair::kNone : Repair::kLeaks);
  if (!report) {
    co_return std::unexpected(report.error());
  }
  if (report->corruptions != 0) {
    co_return fail(ErrorCode::kCorrupt,
                   fmt::format("{}: the image is damaged ({} errors): repair it with check -r all first",
                               image_.name(), report->corruptions));
  }
  report_.leaks = options_.dry_run ? report->leaks : report->leaks_fixed;
  co_return Result<void>{};
}

Task<Result<void>> Compactor::drop_zeroes() {
  const bool cannot =
      (image_.header_.version < 3 && image_.backing_) || (image_.header_.autoclear & kRawExternalData) != 0;
  if (cannot) {
    co_return Result<void>{};
  }
  const auto size = image_.size();
  for (std::uint64_t offset = 0; offset < size;) {
    auto run = co_await image_.find_run(offset, size - offset);
    if (!run) {
      co_return std::unexpected(run.error());
    }
    // Shared clusters stay anyway, for the snapshot's sake.
    if (run->kind == Kind::kData && run->copied) {
      auto done = co_await drop_zeroes_of(offset, run->bytes);
      if (!done) {
        co_return done;
      }
    }
    offset += run->bytes;
    show(static_cast<double>(offset), static_cast<double>(size), 0, options_.dry_run ? 100 : 50);
  }
  if (options_.dry_run) {
    co_return Result<void>{};
  }
  auto done = co_await settle();
  co_return done;
}

/// Whole clusters of [offset, offset + bytes), which are data of their own.
Task<Result<void>> Compactor::drop_zeroes_of(std::uint64_t offset, std::uint64_t bytes) {
  const auto size = image_.size();
  auto at = geometry_.cluster_end(offset);
  const auto end = offset + bytes == size ? size : geometry_.cluster_start(offset + bytes);
  std::vector<std::uint8_t> buffer(static_cast<std::size_t>(std::max(kReadBytes, geometry_.cluster_size())));
  while (at < end) {
    const iovec vec{buffer.data(),
                    static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), end - at))};
    auto read = co_await image_.readv(at, {&vec, 1});
    if (!read) {
      co_return read;
    }
    for (std::uint64_t i = 0; i < vec.iov_len; i += geometry_.cluster_size()) {
      const auto length = std::min(geometry_.cluster_size(), vec.iov_len - i);
      if (!is_zero(
              std::span(buffer).subspan(static_cast<std::size_t>(i), static_cast<std::size_t>(length)))) {
        continue;
      }
      ++report_.zero_clusters;
      if (!options_.dry_run) {
        auto done = co_await image_.write_zeroes(at + i, length, {.may_unmap = true});
        if (!done) {
          co_return done;
        }
      }
    }
    at += vec.iov_len;
  }
  co_return Result<void>{};
}

Task<Result<std::uint64_t>> Compactor::count_used() {
  std::uint64_t used = 0;
  const auto& refcounts = image_.refcounts_;
  if (refcounts->table().empty()) {  // open read-only
    auto loaded = co_await refcounts->load();
    if (!loaded) {
      co_return std::unexpected(loaded.error());
    }
  }
  const auto end = geometry_.clusters_for(image_.file_->size());
  for (std::uint64_t cluster = 0; cluster < end;) {
    const auto row =
        std::min(end, align_down(cluster, refcounts->counts_per_slice()) + refcounts->counts_per_slice());
    if (!refcounts->covers(cluster)) {
      cluster = row;
      continue;
    }
    auto pin = co_await refcounts->slice_of(cluster);
    if (!pin) {
      co_return std::unexpected(pin.error());
    }
    for (; cluster < row; ++cluster) {
      const auto index = cluster & (refcounts->counts_per_slice() - 1);
      used += load_refcount(pin->data(), index, geometry_.refcount_order) != 0 ? 1 : 0;
    }
  }
  co_return used;
}

/// One pass of moving everything beyond what the file could consist of.
Task<Result<void>> Compactor::move_down() {
  auto used = co_await count_used();
  if (!used) {
    co_return std::unexpected(used.error());
  }
  goal_ = *used;
  if (goal_ >= geometry_.clusters_for(image_.file_->size())) {
    co_return Result<void>{};
  }
  Snapshots snapshots(image_);
  const bool shared = image_.header_.nb_snapshots != 0;
  Result<void> done;
  if (shared) {
    done = co_await snapshots.mark_dirty(true);
  }
  if (done) {
    done = co_await find_tables();
  }
  if (done) {
    done = co_await find_uses();
  }
  if (done) {
    done = co_await move_data();
  }
  if (done) {
    done = co_await move_compressed();
  }
  if (done) {
    done = co_await settle();
  }
  if (done) {
    done = co_await move_l2_tables();
  }
  if (done) {
    done = co_await move_l1_tables();
  }
  if (done) {
    done = co_await settle();
  }
  if (done) {
    done = co_await image_.refcounts_->move_tables_below(goal_);
  }
  if (done) {
    done = co_await image_.trim_end();
  }
  if (done && shared) {
    done = co_await snapshots.mark_dirty(false);
  }
  co_return done;
}

/// Free clusters that still take room on the host.
Task<Result<void>> Compactor::punch_holes() {
  const auto end = geometry_.clusters_for(image_.file_->size());
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  for (std::uint64_t cluster = 0; cluster <= end; ++cluster) {
    bool free = false;
    if (cluster < end && !image_.refcounts_->is_metadata(cluster)) {
      auto uses = co_await image_.refcounts_->get(cluster);
      if (!uses) {
        co_return std::unexpected(uses.error());
      }
      free = *uses == 0;
    }
    if (free) {
      first = count == 0 ? cluster : first;
      ++count;
    } else if (count != 0) {
      auto done =
          co_await image_.file_->discard(first << geometry_.cluster_bits, count << geometry_.cluster_bits);
      if (!done) {
        co_return done;
      }
      count = 0;
    }
  }
  co_return Result<void>{};
}

}  // namespace whistler::qcow2
