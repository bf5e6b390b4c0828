#include "block/qcow2/compression.hpp"

#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

/// Content that compresses to a length which differs from cluster to cluster.
Bytes compressible(std::size_t bytes, std::uint32_t seed) {
  Bytes data(bytes);
  const auto noise = pattern(bytes * (10 + seed % 60) / 100, seed);
  std::copy(noise.begin(), noise.end(), data.begin());
  return data;
}

}  // namespace

TEST_CASE("compressed_cluster_survives_and_damage_is_noticed", "[qcow2]") {
  const auto method = GENERATE(qcow2::Compression::kZlib, qcow2::Compression::kZstd);
  const auto cluster = compressible(65536, 3);
  auto packed = qcow2::compress_cluster(method, cluster);
  REQUIRE_FALSE(packed.empty());
  REQUIRE(packed.size() < cluster.size());
  packed.resize(packed.size() + 100);  // padding up to a sector
  Bytes out(cluster.size());
  REQUIRE(qcow2::decompress_cluster(method, packed, out));
  CHECK(out == cluster);
  CHECK_FALSE(qcow2::decompress_cluster(method, std::span(packed).first(1000), out));
  std::fill_n(packed.begin(), 100, std::uint8_t{0xff});
  CHECK_FALSE(qcow2::decompress_cluster(method, packed, out));
  CHECK(qcow2::compress_cluster(method, pattern(65536, 1)).empty());
}

TEST_CASE("qcow2_compressed_writes_are_packed_and_read_by_us_and_by_qemu", "[qcow2][qemu]") {
  const auto options = GENERATE(as<qcow2::CreateOptions>{}, qcow2::CreateOptions{},
                                qcow2::CreateOptions{.compression = qcow2::Compression::kZstd},
                                qcow2::CreateOptions{.cluster_size = 512},
                                qcow2::CreateOptions{.cluster_size = 4096, .refcount_bits = 1},
                                qcow2::CreateOptions{.cluster_size = 4096, .refcount_bits = 2},
                                qcow2::CreateOptions{.extended_l2 = true});
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  auto sized = options;
  sized.size = 2 * kMiB + 1024;
  create_image(*ring, path, sized);
  auto image = open_qcow2(*ring, path);
  auto& qcow2_image = dynamic_cast<qcow2::Image&>(*image);
  Bytes model(static_cast<std::size_t>(sized.size));
  const auto cluster_size = static_cast<std::size_t>(sized.cluster_size);
  const auto put = [&](std::size_t at, std::uint32_t seed) {
    auto data = compressible(std::min(cluster_size, model.size() - at), seed);
    const iovec vec{data.data(), data.size()};
    const auto done = sync_wait(*ring, qcow2_image.write_compressed(at, {&vec, 1}));
    INFO((done ? std::string() : done.error().message));
    REQUIRE(done.has_value());
    std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(at));
  };
  std::uint32_t seed = 0;
  for (std::size_t at = 0; at < model.size(); at += cluster_size) {
    put(at, ++seed);
  }
  const auto plain = pattern(100000, 77);
  REQUIRE(write(*ring, *image, 300001, plain).has_value());
  std::copy(plain.begin(), plain.end(), model.begin() + 300001);
  REQUIRE(sync_wait(*ring, image->flush()).has_value());
  for (std::size_t at = 0; at < model.size() / 4; at += cluster_size) {
    put(at, ++seed);
  }
  CHECK(read(*ring, *image, 0, model.size()) == model);
  close(*ring, image);
  require_clean(*ring, path);
  if (sized.refcount_bits == 16) {
    CHECK(std::filesystem::file_size(path) < model.size());
  }
  if (have_qemu_tools()) {
    make_file(directory.file("model"), model);
    const auto compared = run("qemu-img compare -f qcow2 -F raw " + path + " " + directory.file("model"));
    INFO(compared.output);
    CHECK(compared.status == 0);
  }
}
