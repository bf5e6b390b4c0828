#include "block/qcow2/image.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/check.hpp"
#include "block/qcow2/snapshot_table.hpp"

namespace whistler::qcow2 {

namespace {
constexpr std::uint32_t kSliceBytes = 4096;
constexpr std::uint64_t kRefcountCacheBytes = 1024 * 1024;
constexpr std::uint64_t kMinCacheBytes = 64 * 1024;

Error header_read_error(const Error& error) {
  auto named = error.within("qcow2 header");
  named.brief = "Could not read qcow2 header: " +
                std::generic_category().message(error.sys_errno != 0 ? error.sys_errno : EIO);
  return named;
}
}  // namespace

Image::Image(std::unique_ptr<BlockDevice> file, ImageOptions options)
    : file_(std::move(file)), options_(options), bitmaps_(std::make_unique<Bitmaps>(*this)) {}

Image::~Image() = default;

std::unexpected<Error> Image::corrupt(const std::string& reason) const {
  return std::unexpected(Error{ErrorCode::kCorrupt, EIO, fmt::format("{}: qcow2: {}", name(), reason)});
}

Task<Result<std::unique_ptr<Image>>> Image::open(std::unique_ptr<BlockDevice> file, ImageOptions options) {
  auto image = std::unique_ptr<Image>(new Image(std::move(file), options));
  BlockDevice& device = *image->file_;
  // Most headers fit into 4 KiB; only a long one needs its whole cluster.
  const auto largest =
      static_cast<std::size_t>(std::min<std::uint64_t>(device.size(), 1ULL << kMaxClusterBits));
  const auto first_part = std::min<std::size_t>(largest, 4096);
  std::vector<std::uint8_t> bytes(first_part);
  iovec vec{bytes.data(), first_part};
  auto read = co_await device.readv(0, {&vec, 1});
  if (!read) {
    co_return std::unexpected(header_read_error(read.error()));
  }
  const auto cluster_bits = first_part >= 24 ? load_be<std::uint32_t>(&bytes[20]) : 0;
  const bool long_cluster = cluster_bits > 12 && cluster_bits <= kMaxClusterBits;
  bytes.resize(std::min(largest, long_cluster ? std::size_t{1} << cluster_bits : first_part));
  if (bytes.size() > first_part) {
    vec = {bytes.data() + first_part, bytes.size() - first_part};
    read = co_await device.readv(first_part, {&vec, 1});
    if (!read) {
      co_return std::unexpected(header_read_error(read.error()));
    }
  }
  auto header = parse_header(bytes, device.size(), device.name(), options.for_repair);
  if (!header) {
    co_return std::unexpected(header.error());
  }
  image->header_ = std::move(*header);
  device.expect_growth();
  image->geometry_ = image->header_.geometry();
  if ((image->header_.incompatible & kCorruptBit) != 0 && !options.read_only && !options.for_repair) {
    co_return fail(
        ErrorCode::kCorrupt,
        fmt::format("{}: the image is marked corrupt: repair it with check -r all, or open it read-only",
                    device.name()),
        "qcow2: Image is corrupt; cannot be opened read/write");
  }
  const auto& geometry = image->geometry_;
  const auto slice_bytes =
      std::min<std::uint32_t>(kSliceBytes, static_cast<std::uint32_t>(geometry.cluster_size()));
  const auto whole_disk =
      align_up(geometry.clusters_for(image->size()) * geometry.l2_entry_bytes(), slice_bytes) + kSliceBytes;
  const auto limit = options.metadata_cache_bytes != 0 ? options.metadata_cache_bytes
                                                       : std::min(whole_disk, kMaxAutomaticCache);
  // Where all tables fit, dirty ones crowd out nobody, and only a flush has them written: otherwise writes
  // all over a small disk would bring a barrier every few requests.
  const auto l2_bytes = std::max(limit, kMinCacheBytes);
  image->l2_cache_ = std::make_unique<SliceCache>(device, "L2 table", slice_bytes, l2_bytes,
                                                  l2_bytes >= whole_disk ? l2_bytes : l2_bytes / 2);
  image->make_refcounts();
  auto loaded = co_await image->load_encryption();
  if (!loaded) {
    co_return std::unexpected(loaded.error());
  }
  loaded = co_await image->load_l1();
  if (loaded && !options.for_repair) {
    loaded = co_await image->check_snapshot_table();
  }
  if (!loaded) {
    co_return std::unexpected(loaded.error());
  }
  co_return image;
}

void Image::make_refcounts() {
  refcounts_ = std::make_unique<Refcounts>(*file_, header_, l2_cache_->slice_bytes(), kRefcountCacheBytes);
}

Task<Result<void>> Image::load_l1() {
  std::vector<std::uint8_t> raw(std::size_t{header_.l1_size} * 8);
  const iovec vec{raw.data(), raw.size()};
  auto read = co_await file_->readv(header_.l1_table_offset, {&vec, 1});
  if (!read) {
    co_return std::unexpected(read.error().within("qcow2 L1 table"));
  }
  l1_.resize(header_.l1_size);
  for (std::size_t i = 0; i < l1_.size(); ++i) {
    l1_[i] = load_be<std::uint64_t>(&raw[i * 8]);
  }
  co_return Result<void>{};
}

Task<Result<void>> Image::check_snapshot_table() {
  const auto table = co_await read_snapshot_table(*file_, header_);
  if (!table) {
    co_return std::unexpected(table.error());
  }
  co_return Result<void>{};
}

Task<Result<void>> Image::prepare() {
  if (geometry_.external_data && !data_file_ && !options_.for_repair && !options_.no_io) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("{}: the image keeps its data in another file, which was not opened", name()));
  }
  if (options_.read_only) {
    co_return Result<void>{};
  }
  const bool dirty = (header_.incompatible & kDirty) != 0;
  auto done = co_await refcounts_->load(dirty || options_.for_repair);
  if (!done) {
    co_return done;
  }
  refcounts_->add_metadata(header_.l1_table_offset >> geometry_.cluster_bits,
                           geometry_.clusters_for(l1_.size() * 8));
  if (const auto place = header_.crypto_header()) {
    refcounts_->add_metadata(place->offset >> geometry_.cluster_bits, geometry_.clusters_for(place->bytes));
  }
  for (const auto entry : l1_) {
    if ((entry & kOffsetMask) != 0) {
      refcounts_->add_metadata((entry & kOffsetMask) >> geometry_.cluster_bits);
    }
  }
  co_await load_snapshot_places();
  refcounts_->set_describe([this](std::uint64_t cluster) { return structure_at(cluster); });
  if (dirty && !options_.for_repair) {
    // Only refcounts may be behind; they are counted anew.
    auto report = co_await check_image(*this, Repair::kAll);
    if (!report) {
      co_return std::unexpected(report.error());
    }
    for (const auto& message : report->messages) {
      fmt::print(stderr, "{}\n", message);
    }
    if (report->corruptions != 0) {
      auto error =
          corrupt("was not closed properly, and its refcounts could not be repaired: run check -r all");
      error.error().brief = "Could not repair dirty image: Input/output error";
      co_return error;
    }
    header_.incompatible &= ~kDirty;
    done = co_await write_header_fields();
    if (!done) {
      co_return done;
    }
  }
  const auto bitmaps = co_await bitmaps_->load();
  const bool keep_bitmaps = bitmaps.has_value() && bitmap_extension(header_).has_value();
  const auto kept = header_.autoclear & (kRawExternalData | (keep_bitmaps ? kBitmapsValid : 0));
  if (header_.autoclear != kept) {
    header_.autoclear = kept;
    done = co_await write_header_fields();
  }
  if (!options_.for_repair) {
    resume_lazy();
  }
  co_return done;
}

Task<Result<void>> Image::write_header_fields() {
  const auto guard = co_await refcounts_->header_mutex().lock();
  auto fields = encode_fields(header_);
  const iovec vec{&fields, std::min<std::size_t>(sizeof fields, header_.header_length)};
  auto written = co_await file_->writev(0, {&vec, 1});
  if (written) {
    written = co_await file_->flush();
  }
  header_unsettled_ = !written.has_value();
  co_return written;
}

Task<Result<void>> Image::replace_extensions(std::vector<Extension> extensions) {
  const auto guard = co_await refcounts_->header_mutex().lock();
  auto changed = header_;
  changed.extensions = std::move(extensions);
  auto bytes = encode_header(changed);
  if (!bytes) {  // the names of features are a courtesy
    changed.set_extension(kFeatureNamesExtension, {});
    bytes = encode_header(changed);
  }
  if (!bytes) {
    co_return std::unexpected(bytes.error().within(name()));
  }
  const iovec vec{bytes->data(), bytes->size()};
  auto written = co_await file_->writev(0, {&vec, 1});
  if (written) {
    written = co_await file_->flush();
  }
  if (written) {
    header_.extensions = std::move(changed.extensions);
    header_.backing_name_offset = changed.backing_name_offset;
  }
  co_return written;
}

Task<Result<void>> Image::note_change(std::uint64_t offset, std::uint64_t bytes) {
  if (!bitmaps_->tracking()) {
    co_return Result<void>{};
  }
  auto noted = co_await bitmaps_->note(offset, bytes);
  co_return noted;
}

Task<Result<void>> Image::settle() {
  auto result = co_await refcounts_->release_tail();
  if (result && !read_only()) {
    result = co_await bitmaps_->sync();
  }
  if (result) {
    result = co_await flush();
  }
  lazy_ = false;
  if (result &&
      refcounts_->cache().has_dirty()) {  // deferred ones, and those of clusters that flush has freed
    result = co_await flush();
  }
  if (result && counts_deferred_ && !corrupt_) {
    result = co_await settle_counts();
  }
  co_return result;
}

Task<Result<void>> Image::close() {
  auto result = co_await settle();
  for (BlockDevice* device : {data_file_.get(), file_.get(), backing_.get()}) {
    if (device != nullptr) {
      auto closed = co_await device->close();
      if (result) {
        result = closed;
      }
    }
  }
  co_return result;
}

}  // namespace whistler::qcow2
