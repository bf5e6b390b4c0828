// Damage that a check finds, how it is repaired, and what an image refuses once it is damaged.
#include <algorithm>
#include <array>
#include <fstream>

#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kCluster = 65536;
// Where our images have them: header, refcount table, refcount block, L1 table.
constexpr std::uint64_t kFirstCount = 2 * kCluster;
constexpr std::uint64_t kL1Table = 3 * kCluster;

std::uint64_t peek(const std::string& path, std::uint64_t offset) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, 8> bytes{};
  file.seekg(static_cast<std::streamoff>(offset)).read(bytes.data(), bytes.size());
  return load_be<std::uint64_t>(reinterpret_cast<const std::uint8_t*>(bytes.data()));
}

void poke(const std::string& path, std::uint64_t offset, const std::string& bytes) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(offset))
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void poke(const std::string& path, std::uint64_t offset, std::uint64_t value) {
  std::string bytes(8, '\0');
  store_be<std::uint64_t>(reinterpret_cast<std::uint8_t*>(bytes.data()), value);
  poke(path, offset, bytes);
}

/// An image of 4 MiB with `bytes` of data at its begin.
std::string make_image(Ring& ring, const TemporaryDirectory& directory, qcow2::CreateOptions options,
                       std::size_t bytes = kCluster) {
  const auto path = directory.file("i.qcow2");
  options.size = 4 << 20;
  create_image(ring, path, options);
  auto image = open_qcow2(ring, path);
  REQUIRE(write(ring, *image, 0, Bytes(bytes, 0x11)).has_value());
  close(ring, image);
  return path;
}

/// The offset of the L2 entry of guest offset 0.
std::uint64_t first_entry(const std::string& path) { return peek(path, kL1Table) & qcow2::kOffsetMask; }

bool says(const qcow2::CheckReport& report, const std::string& line) {
  return std::ranges::find(report.messages, line) != report.messages.end();
}

}  // namespace

TEST_CASE("check_of_a_used_cluster_that_counts_as_free_rebuilds_the_refcounts", "[qcow2]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = make_image(*ring, directory, {});
  const auto data = (peek(path, first_entry(path)) & qcow2::kOffsetMask) / kCluster;
  poke(path, kFirstCount + data * 2, std::string(2, '\0'));

  const auto found = check(*ring, path);
  const auto repaired = check(*ring, path, qcow2::Repair::kAll);

  CHECK(found.corruptions == 2);  // the count, and the mark that says nobody else has the cluster
  CHECK(says(repaired, "Rebuilding refcount structure"));
  CHECK(says(repaired, "Repairing cluster 2 refcount=1 reference=0"));
  CHECK(repaired.corruptions_fixed == 1);
  CHECK(repaired.leaks_fixed == 0);
  require_clean(*ring, path);
  auto image = open_qcow2(*ring, path);
  CHECK(read(*ring, *image, 0, kCluster) == Bytes(kCluster, 0x11));
}

TEST_CASE("check_of_more_uses_than_the_width_can_count_does_not_repair_them_away", "[qcow2]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = make_image(*ring, directory, {.refcount_bits = 1});
  poke(path, first_entry(path) + 8, peek(path, first_entry(path)));

  const auto report = check(*ring, path, qcow2::Repair::kAll);

  CHECK(report.corruptions == 1);
  CHECK(report.corruptions_fixed == 0);
  REQUIRE(report.messages.size() == 1);
  CHECK(report.messages[0].starts_with("ERROR: overflow cluster offset="));
}

TEST_CASE("check_drops_a_refcount_block_outside_the_image", "[qcow2]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = make_image(*ring, directory, {});
  poke(path, kCluster + 8, std::uint64_t{1} << 40);

  const auto report = check(*ring, path, qcow2::Repair::kAll);

  CHECK(says(report, "Repairing refcount block 1 is outside image"));
  CHECK(peek(path, kCluster + 8) == 0);
  require_clean(*ring, path);
}

TEST_CASE("check_frees_a_zero_cluster_of_its_unaligned_host_cluster", "[qcow2]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = make_image(*ring, directory, {}, 2 * kCluster);
  poke(path, first_entry(path) + 16, 0x2a00 | qcow2::kCopied | qcow2::kZeroFlag);

  const auto report = check(*ring, path, qcow2::Repair::kAll);

  CHECK(report.corruptions_fixed == 1);
  CHECK(peek(path, first_entry(path) + 16) == qcow2::kZeroFlag);
  require_clean(*ring, path);
}

TEST_CASE("write_onto_the_l2_table_of_a_snapshot_is_refused", "[qcow2]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = make_image(*ring, directory, {});
  const auto table = first_entry(path);
  if (!have_qemu_tools()) {
    WARN("qemu-img is not installed: not tested");
    return;
  }
  REQUIRE(run("qemu-img snapshot -c s " + path + " && qemu-io -f qcow2 -c 'write 0 64k' " + path).status ==
          0);
  REQUIRE(first_entry(path) != table);
  poke(path, first_entry(path), table | qcow2::kCopied);

  auto image = open_qcow2(*ring, path);
  const auto written = write(*ring, *image, 0, Bytes(512, 0x22));

  REQUIRE_FALSE(written.has_value());
  CHECK(written.error().message.ends_with("(overlaps with inactive L2 table)"));
}

TEST_CASE("resize_of_a_version_2_image_with_snapshots_is_refused", "[qcow2]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = make_image(*ring, directory, {.version = 2});
  if (!have_qemu_tools()) {
    WARN("qemu-img is not installed: not tested");
    return;
  }
  REQUIRE(run("qemu-img snapshot -c s " + path).status == 0);

  auto image = open_qcow2(*ring, path);
  const auto resized = sync_wait(*ring, image->resize(8 << 20));

  REQUIRE_FALSE(resized.has_value());
  CHECK(resized.error().brief == "Can't resize a v2 image which has snapshots");
}
