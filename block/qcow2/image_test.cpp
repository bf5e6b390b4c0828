#include "block/qcow2/image.hpp"

#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

struct Variant {
  const char* name;
  qcow2::CreateOptions options;
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
