#include "block/qcow2/image.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <random>
#include <set>

#include "block/faulty.hpp"
#include "block/qcow2/simulation.hpp"
#include "block/qcow2/snapshots.hpp"
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

struct Variant {
  const char* name;
  qcow2::CreateOptions options;
};

/// Counts what is read of the host's file.
class CountingReads final : public Borrowed {
 public:
  CountingReads(BlockDevice& file, std::uint64_t& reads) : Borrowed(file), reads_(reads) {}
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    ++reads_;
    return Borrowed::readv(offset, to);
  }

 private:
  std::uint64_t& reads_;
};

std::vector<Variant> variants() {
  return {{"default", {}},
          {"version 2", {.version = 2}},
          {"512-byte clusters", {.cluster_size = 512}},
          {"512-byte clusters, 64-bit refcounts", {.cluster_size = 512, .refcount_bits = 64}},
          {"4 KiB clusters, 1-bit refcounts", {.cluster_size = 4096, .refcount_bits = 1}},
          {"2 MiB clusters, 8-bit refcounts", {.cluster_size = 2 * kMiB, .refcount_bits = 8}},
          {"extended L2", {.extended_l2 = true}},
          {"extended L2, 16 KiB clusters", {.cluster_size = 16384, .extended_l2 = true}},
          {"zstd", {.compression = qcow2::Compression::kZstd}}};
}

}  // namespace

TEST_CASE("qcow2_new_image_is_clean_and_reads_zero", "[qcow2]") {
  const auto variant = GENERATE(from_range(variants()));
  INFO(variant.name);
  const TemporaryDirectory directory;
  const auto path = directory.file("i.qcow2");
  const auto ring = make_ring();
  auto options = variant.options;
  options.size = 10 * kMiB;
  create_image(*ring, path, options);
  require_clean(*ring, path);
  auto image = open_qcow2(*ring, path);
  CHECK(image->size() == 10 * kMiB);
  CHECK(read(*ring, *image, 5 * kMiB - 100, 4096) == Bytes(4096));
  close(*ring, image);
}

TEST_CASE("qcow2_written_data_is_read_by_us_and_by_qemu", "[qcow2][qemu]") {
  const auto variant = GENERATE(from_range(variants()));
  INFO(variant.name);
  const TemporaryDirectory directory;
  const auto path = directory.file("i.qcow2");
  const auto ring = make_ring();
  auto options = variant.options;
  options.size = 10 * kMiB;
  create_image(*ring, path, options);
  Bytes model(10 * kMiB);
  auto image = open_qcow2(*ring, path);
  std::uint32_t seed = 1;
  for (const auto& [offset, bytes] : std::vector<std::pair<std::size_t, std::size_t>>{{0, 512},
                                                                                      {70000, 1000},
                                                                                      {65536, 65536},
                                                                                      {3 * kMiB - 1, 2},
                                                                                      {4 * kMiB + 7, 300000},
                                                                                      {10 * kMiB - 512, 512},
                                                                                      {100, 70000}}) {
    const auto data = pattern(bytes, seed++);
    std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(offset));
    REQUIRE(write(*ring, *image, offset, data).has_value());
  }
  CHECK(read(*ring, *image, 0, model.size()) == model);
  close(*ring, image);
  require_clean(*ring, path);
  image = open_qcow2(*ring, path, true);
  CHECK(read(*ring, *image, 0, model.size()) == model);
  if (have_qemu_tools()) {
    make_file(directory.file("model"), model);
    const auto compared = run("qemu-img compare -f qcow2 -F raw " + path + " " + directory.file("model"));
    INFO(compared.output);
    CHECK(compared.status == 0);
  }
}

TEST_CASE("qcow2_shrinking_gives_the_space_back_and_regrowing_shows_zeroes", "[qcow2][resize]") {
  const auto cluster_size = GENERATE(4096ULL, 65536ULL);
  const TemporaryDirectory directory;
  const auto path = directory.file("i.qcow2");
  const auto ring = make_ring();
  create_image(*ring, path, {.size = 8 * kMiB, .cluster_size = cluster_size});
  auto image = open_qcow2(*ring, path);
  const auto data = pattern(4 * kMiB, 3);
  REQUIRE(write(*ring, *image, 0, data).has_value());
  const auto big = std::filesystem::file_size(path);
  REQUIRE(sync_wait(*ring, image->resize(kMiB / 2 + 512)).has_value());
  CHECK(image->size() == kMiB / 2 + 512);
  CHECK(std::filesystem::file_size(path) < big / 4);
  REQUIRE(sync_wait(*ring, image->resize(6 * kMiB)).has_value());
  CHECK(read(*ring, *image, 0, kMiB / 2 + 512) == Bytes(data.begin(), data.begin() + kMiB / 2 + 512));
  CHECK(read(*ring, *image, kMiB / 2 + 512, kMiB) == Bytes(kMiB));
  CHECK(read(*ring, *image, 2 * kMiB, 4 * kMiB) == Bytes(4 * kMiB));
  close(*ring, image);
  require_clean(*ring, path);
}

TEST_CASE("qcow2_resized_by_any_amount_keeps_its_data_and_shows_zeroes_behind", "[qcow2][resize]") {
  const auto version = GENERATE(2U, 3U);
  const auto extended = GENERATE(false, true);
  const auto backed = GENERATE(false, true);
  if (extended && version < 3) {
    return;
  }
  const TemporaryDirectory directory;
  const auto path = directory.file("top.qcow2");
  const auto ring = make_ring();
  constexpr std::uint64_t kSize = kMiB;
  qcow2::CreateOptions options{
      .size = kSize, .version = version, .cluster_size = 65536, .extended_l2 = extended};
  if (backed) {
    make_file(directory.file("base.raw"), pattern(kSize, 9));
    options.backing_file = directory.file("base.raw");
    options.backing_format = "raw";
  }
  create_image(*ring, path, options);
  auto image = open_qcow2(*ring, path);
  auto model = pattern(kSize, 4);
  REQUIRE(write(*ring, *image, 0, model).has_value());
  std::mt19937 random(version * 2 + (extended ? 1 : 0));
  for (unsigned step = 0; step < 60; ++step) {
    // Short steps as often as long ones: within a cluster, and over many.
    const auto reach = step % 2 == 0 ? 65536ULL : 2 * kSize;
    const auto low = model.size() > reach ? model.size() - reach : 512;
    const auto size = (low + random() % (model.size() + reach - low)) / 512 * 512;
    INFO("step " << step << ": from " << model.size() << " to " << size);
    REQUIRE(sync_wait(*ring, image->resize(size)).has_value());
    model.resize(size);
    REQUIRE(read(*ring, *image, 0, size) == model);
    if (step % 5 == 0) {
      const auto data = pattern(512, step);
      const auto at = random() % (size / 512) * 512;
      REQUIRE(write(*ring, *image, at, data).has_value());
      std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  close(*ring, image);
  require_clean(*ring, path);
}

TEST_CASE("qcow2_random_reads_of_100_gib_load_each_slice_of_the_tables_once", "[qcow2][speed]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("big.qcow2");
  const auto ring = make_ring();
  constexpr std::uint64_t kSize = 100ULL << 30;
  create_image(*ring, path, {.size = kSize});
  {
    auto file = FileDevice::open(*ring, {.path = path});
    REQUIRE(file.has_value());
    auto image = sync_wait(*ring, qcow2::Image::open(std::move(*file), {}));
    REQUIRE(image.has_value());
    REQUIRE(sync_wait(*ring, (*image)->prepare()).has_value());
    REQUIRE(sync_wait(*ring, (*image)->preallocate(0, kSize, Preallocation::kMetadata)).has_value());
    REQUIRE(sync_wait(*ring, (*image)->close()).has_value());
  }
  auto file = FileDevice::open(*ring, {.path = path, .read_only = true});
  REQUIRE(file.has_value());
  std::uint64_t reads = 0;
  auto image = sync_wait(
      *ring, qcow2::Image::open(std::make_unique<CountingReads>(**file, reads), {.read_only = true}));
  REQUIRE(image.has_value());
  REQUIRE(sync_wait(*ring, (*image)->prepare()).has_value());
  const auto before = reads;
  constexpr std::uint64_t kSliceCoverage = 4096 / 8 * 65536;
  constexpr std::uint64_t kReads = 20000;
  std::mt19937_64 random(5);
  std::set<std::uint64_t> slices;
  Bytes data(4096);
  const iovec vec{data.data(), data.size()};
  for (std::uint64_t i = 0; i < kReads; ++i) {
    const auto at = random() % (kSize / 4096) * 4096;
    slices.insert(at / kSliceCoverage);
    REQUIRE(sync_wait(*ring, (*image)->readv(at, {&vec, 1})).has_value());
  }
  CHECK(reads - before == kReads + slices.size());
}

TEST_CASE("qcow2_lazy_refcounts_are_behind_only_while_the_dirty_bit_says_so", "[qcow2][lazy]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("i.qcow2");
  const auto ring = make_ring();
  create_image(*ring, path, {.size = 8 * kMiB, .lazy_refcounts = true});
  auto image = open_qcow2(*ring, path);
  const auto incompatible = [](const Bytes& bytes) { return load_be<std::uint64_t>(&bytes[72]); };
  CHECK(incompatible(file_content(path)) == 0);
  REQUIRE(write(*ring, *image, 0, Bytes(70000, 5), {.fua = true}).has_value());
  const auto torn = file_content(path);
  CHECK(incompatible(torn) == qcow2::kDirty);
  close(*ring, image);
  CHECK(incompatible(file_content(path)) == 0);
  require_clean(*ring, path);
  // The program died instead: the counts are behind, and opening sets them right.
  make_file(path, torn);
  CHECK(check(*ring, path).corruptions > 0);
  image = open_qcow2(*ring, path);
  CHECK(incompatible(file_content(path)) == 0);
  CHECK(read(*ring, *image, 0, 70000) == Bytes(70000, 5));
  close(*ring, image);
  require_clean(*ring, path);
}

TEST_CASE("qcow2_write_over_a_snapshots_table_is_prevented", "[qcow2][hostile]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("i.qcow2");
  const auto ring = make_ring();
  create_image(*ring, path, {.size = 8 * kMiB});
  auto image = open_qcow2(*ring, path);
  REQUIRE(write(*ring, *image, 0, Bytes(65536, 1)).has_value());
  qcow2::Snapshots snapshots(dynamic_cast<qcow2::Image&>(*image));
  REQUIRE(sync_wait(*ring, snapshots.create({})).has_value());
  const auto place = sync_wait(*ring, snapshots.list())->front().l1_table_offset;
  REQUIRE(write(*ring, *image, 0, Bytes(65536, 2)).has_value());
  close(*ring, image);
  auto bytes = file_content(path);
  const auto l1 = static_cast<std::size_t>(load_be<std::uint64_t>(&bytes[40]));
  const auto l2 = static_cast<std::size_t>(load_be<std::uint64_t>(&bytes[l1]) & qcow2::kOffsetMask);
  store_be<std::uint64_t>(&bytes[l2], place | qcow2::kCopied);
  make_file(path, bytes);
  image = open_qcow2(*ring, path);
  const auto refused = write(*ring, *image, 0, Bytes(512, 3));
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().sys_errno == EIO);
  CHECK(refused.error().message.ends_with(
      "Preventing invalid write on metadata (overlaps with inactive L1 table)"));
  CHECK(load_be<std::uint64_t>(&file_content(path)[72]) == qcow2::kCorruptBit);
}

TEST_CASE("qcow2_writes_all_over_a_disk_whose_tables_fit_bring_no_barrier", "[qcow2]") {
  const auto size =
      GENERATE(1024 * kMiB, 1000 * kMiB, 999 * kMiB + 512);  // the last slices in part beyond its end
  const auto cluster_size = GENERATE(std::uint64_t{4096}, std::uint64_t{65536});
  INFO(size << " bytes in clusters of " << cluster_size);
  const TemporaryDirectory directory;
  const auto path = directory.file("i.qcow2");
  const auto ring = make_ring();
  create_image(*ring, path, {.size = size, .cluster_size = cluster_size});
  unsigned flushes = 0;
  auto file = FileDevice::open(*ring, {.path = path});
  REQUIRE(file.has_value());
  auto counting = std::make_unique<FaultyDevice>(std::move(*file), [&](FaultOperation operation, auto, auto) {
    flushes += operation == FaultOperation::kFlush ? 1 : 0;
    return Fault{};
  });
  auto image = sync_wait(*ring, qcow2::Image::open(std::move(counting), {}));
  REQUIRE(image.has_value());
  REQUIRE(sync_wait(*ring, (*image)->prepare()).has_value());
  flushes = 0;
  const auto covered_by_slice = 4096 / 8 * cluster_size;
  for (unsigned round = 0; round < 2; ++round) {
    for (std::uint64_t offset = round * cluster_size; offset < size; offset += covered_by_slice) {
      REQUIRE(write(*ring, **image, offset, Bytes(512, 1)).has_value());
    }
  }
  CHECK(flushes == 0);
  REQUIRE(sync_wait(*ring, (*image)->close()).has_value());
  CHECK(flushes != 0);
}
