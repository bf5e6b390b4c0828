#include "block/qcow2/amend.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "block/qcow2/snapshots.hpp"

namespace whistler::qcow2 {

namespace {

/// A change of width reads the counts, tries them in the new width, and writes them.
enum WidthPass : std::uint64_t { kRead, kTry, kWrite, kWidthPasses };

constexpr std::uint64_t kCountsAtOnce = 1024 * 1024;

std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kUnsupported, std::move(text)); }

}  // namespace

void Amender::report(std::uint64_t done, std::uint64_t work) const {
  if (report_) {
    report_(done, work);
  }
}

Task<Result<void>> Amender::write_header(Header header) {
  auto bytes = encode_header(header);
  if (!bytes) {
    header.set_extension(kFeatureNamesExtension, {});
    bytes = encode_header(header);
  }
  if (!bytes) {
    co_return std::unexpected(bytes.error());
  }
  // A shorter header leaves nothing of the longer one behind.
  bytes->resize(std::max<std::size_t>(bytes->size(), 512));
  auto done = co_await image_.settle_counts();
  const iovec vec{bytes->data(), bytes->size()};
  if (done) {
    done = co_await image_.file_->writev(0, {&vec, 1});
  }
  if (done) {
    done = co_await image_.file_->flush();
  }
  if (done) {
    image_.header_ = std::move(header);
    image_.geometry_ = image_.header_.geometry();
  }
  image_.resume_lazy();
  co_return done;
}

Task<Result<void>> Amender::upgrade() {
  report(0, 2);  // two halves, as QEMU tells it: the snapshots and the header
  // Version 3 wants more in each entry of the snapshot table than version 2 did.
  Snapshots snapshots(image_);
  auto list = co_await snapshots.read_table();
  if (!list) {
    co_return std::unexpected(list.error());
  }
  Result<void> done;
  if (std::ranges::any_of(*list, [](const Snapshot& snapshot) { return snapshot.extra_bytes < 16; })) {
    done = co_await snapshots.replace_table(std::move(*list));
    co_await image_.load_snapshot_places();
  }
  if (!done) {
    co_return done;
  }
  report(1, 2);
  auto header = image_.header_;
  header.version = 3;
  header.header_length = sizeof(DiskHeader);
  if (header.find_extension(kFeatureNamesExtension) == nullptr) {
    header.extensions.push_back(feature_names());
  }
  done = co_await write_header(std::move(header));
  if (done) {
    report(2, 2);
  }
  co_return done;
}

Task<Result<void>> Amender::downgrade() {
  const auto& header = image_.header_;
  if (header.geometry().external_data) {
    co_return refuse("Cannot downgrade an image with a data file");
  }
  if (header.refcount_order != 4) {
    co_return refuse("compat=0.10 requires refcount_bits=16");
  }
  auto done = co_await image_.settle_counts();
  if (!done) {
    co_return done;
  }
  if (const auto bits = header.incompatible & ~kDirty; bits != 0) {
    co_return refuse(fmt::format("Cannot downgrade an image with incompatible features {:#x} set", bits));
  }
  Snapshots snapshots(image_);
  const auto list = co_await snapshots.list();
  if (!list) {
    co_return std::unexpected(list.error());
  }
  to_expand_ = header.l1_size;
  for (const auto& snapshot : *list) {
    to_expand_ += snapshot.l1_size;
    if (snapshot.vm_state_size > UINT32_MAX || snapshot.disk_size != header.size) {
      co_return refuse("Internal snapshots prevent downgrade of image");
    }
  }
  done = co_await expand_zero_clusters();
  if (done) {
    done = co_await expand_zero_snapshots(*list);
  }
  if (!done) {
    auto error = done.error();
    error.brief = "Failed to turn zero into data clusters: " +
                  std::generic_category().message(error.sys_errno != 0 ? error.sys_errno : EIO);
    co_return std::unexpected(std::move(error));
  }
  done = co_await image_.flush();
  if (!done) {
    co_return done;
  }
  auto old = image_.header_;
  old.version = 2;
  old.header_length = kHeaderV2Bytes;
  old.incompatible = 0;
  old.compatible = 0;
  old.autoclear = 0;
  old.set_extension(kFeatureNamesExtension, {});
  old.set_extension(kBitmapsExtension, {});
  done = co_await write_header(std::move(old));
  co_return done;
}

Task<Result<void>> Amender::set_lazy_refcounts(bool lazy) {
  auto done = co_await image_.settle_counts();
  if (done) {
    auto& flags = image_.header_.compatible;
    flags = lazy ? flags | kLazyRefcounts : flags & ~kLazyRefcounts;
    done = co_await image_.write_header_fields();
  }
  image_.resume_lazy();
  co_return done;
}

Task<Result<void>> Amender::set_data_file(std::string name) {
  if (!image_.geometry_.external_data) {
    co_return refuse("data-file can only be set for images that use an external data file");
  }
  auto header = image_.header_;
  header.set_extension_text(kDataFileExtension, name);
  auto done = co_await write_header(std::move(header));
  co_return done;
}

Task<Result<void>> Amender::drop_raw_data_file() {
  image_.header_.autoclear &= ~kRawExternalData;
  auto done = co_await image_.write_header_fields();
  co_return done;
}

/// A pass of a change of width has come to `cluster`; entries of the table that name no block count too.
void Amender::report_pass(std::uint64_t pass, std::uint64_t cluster) {
  const auto entries = std::uint64_t{image_.refcounts_->table().size()};
  const auto end = std::min(entries, cluster >> image_.geometry_.refcount_block_bits()) + pass * entries;
  for (; passed_ <= end; ++passed_) {
    report(passed_, kWidthPasses * entries);
  }
}

/// Every cluster's count, without those of the refcount structures themselves.
Task<Result<std::vector<std::uint64_t>>> Amender::read_counts() {
  auto& refcounts = *image_.refcounts_;
  const auto& geometry = image_.geometry_;
  const auto covered = std::uint64_t{refcounts.table().size()} << geometry.refcount_block_bits();
  const auto end = std::min(covered, geometry.clusters_for(image_.file_->size()));
  std::vector<std::uint64_t> counts(static_cast<std::size_t>(end));
  for (std::uint64_t cluster = 0; cluster < end; ++cluster) {
    report_pass(kRead, cluster);
    if (!refcounts.covers(cluster)) {
      continue;
    }
    auto count = co_await refcounts.get(cluster);
    if (!count) {
      co_return std::unexpected(count.error());
    }
    counts[static_cast<std::size_t>(cluster)] = *count;
  }
  const auto uncount = [&](std::uint64_t offset, std::uint64_t clusters) {
    for (std::uint64_t i = 0; i < clusters; ++i) {
      const auto cluster = (offset >> geometry.cluster_bits) + i;
      if (cluster < end && counts[static_cast<std::size_t>(cluster)] != 0) {
        --counts[static_cast<std::size_t>(cluster)];
      }
    }
  };
  uncount(image_.header_.refcount_table_offset, image_.header_.refcount_table_clusters);
  for (const auto block : refcounts.table()) {
    uncount(block, block != 0 ? 1 : 0);
  }
  co_return counts;
}

Task<Result<void>> Amender::set_refcount_bits(unsigned bits) {
  if (image_.header_.version < 3) {
    co_return refuse(
        "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or "
        "greater)");
  }
  auto done = co_await image_.settle_counts();
  if (!done) {
    co_return done;
  }
  auto counts = co_await read_counts();
  if (!counts) {
    co_return std::unexpected(counts.error());
  }
  const auto most = bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
  for (std::size_t i = 0; i < counts->size(); ++i) {
    report_pass(kTry, i);
    if ((*counts)[i] > most) {
      co_return refuse(
          fmt::format("Cannot decrease refcount entry width to {} bits: Cluster at offset {:#x} has a "
                      "refcount of {}",
                      bits, static_cast<std::uint64_t>(i) << image_.geometry_.cluster_bits, (*counts)[i]));
    }
  }
  const auto slice_bytes = image_.refcounts_->cache().slice_bytes();
  const auto old_order = image_.header_.refcount_order;
  image_.header_.refcount_order = static_cast<unsigned>(std::countr_zero(bits));
  auto fresh = std::make_unique<Refcounts>(*image_.file_, image_.header_, slice_bytes, kCountsAtOnce);
  done = co_await fresh->rebuild(counts->size(), [this, &counts](std::uint64_t cluster) {
    report_pass(kWrite, cluster);
    return (*counts)[static_cast<std::size_t>(cluster)];
  });
  if (!done) {
    image_.header_.refcount_order = old_order;
    co_return done;
  }
  report_pass(kWrite, ~std::uint64_t{0});
  image_.geometry_ = image_.header_.geometry();
  image_.refcounts_ = std::make_unique<Refcounts>(*image_.file_, image_.header_, slice_bytes, kCountsAtOnce);
  done = co_await image_.prepare();
  co_return done;
}

}  // namespace whistler::qcow2
