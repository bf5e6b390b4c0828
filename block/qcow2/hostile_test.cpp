// Images with damaged or malicious tables: an error, perhaps a refusal to write on, but never a crash and
// never a write over tables.
#include <random>

#include "block/memory.hpp"
#include "block/qcow2/simulation.hpp"
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

/// A small image with data, a zero cluster and a compressed-looking entry, as bytes.
Bytes make_image(const qcow2::CreateOptions& options) {
  Scheduler scheduler(1);
  SimulatedDisk disk(scheduler, {});
  REQUIRE(sync_wait(scheduler, qcow2::create(disk, options)).has_value());
  auto image = sync_wait(scheduler, qcow2::Image::open(std::make_unique<Borrowed>(disk), {}));
  REQUIRE(image.has_value());
  REQUIRE(sync_wait(scheduler, (*image)->prepare()).has_value());
  Bytes data = pattern(200000, 1);
  const iovec vec{data.data(), data.size()};
  REQUIRE(sync_wait(scheduler, (*image)->writev(10000, {&vec, 1})).has_value());
  REQUIRE(sync_wait(scheduler, (*image)->write_zeroes(65536, 65536)).has_value());
  REQUIRE(sync_wait(scheduler, (*image)->close()).has_value());
  return disk.content();
}

/// Opens it and does a little of everything. Gives the error of opening, or "".
std::string use(Bytes bytes, Random& random) {
  Scheduler scheduler(1);
  SimulatedDisk disk(scheduler, std::move(bytes));
  auto image = sync_wait(scheduler, qcow2::Image::open(std::make_unique<Borrowed>(disk), {}));
  if (!image) {
    return image.error().message;
  }
  if (auto prepared = sync_wait(scheduler, (*image)->prepare()); !prepared) {
    return prepared.error().message;
  }
  const auto size = std::min<std::uint64_t>((*image)->size(), 4 * kMiB);
  Bytes data(5000, 0xaa);
  const iovec vec{data.data(), data.size()};
  for (int i = 0; i < 6 && size > data.size(); ++i) {
    const auto at = below(random, size - data.size());
    static_cast<void>(sync_wait(scheduler, (*image)->readv(at, {&vec, 1})));
    static_cast<void>(sync_wait(scheduler, (*image)->writev(at, {&vec, 1})));
    static_cast<void>(sync_wait(scheduler, (*image)->discard(at, data.size())));
    static_cast<void>(sync_wait(scheduler, (*image)->block_status(at, data.size())));
  }
  static_cast<void>(sync_wait(scheduler, (*image)->flush()));
  static_cast<void>(sync_wait(scheduler, qcow2::check_image(**image, qcow2::Repair::kNone)));
  return "";
}

}  // namespace

TEST_CASE("qcow2_hostile_images_are_errors_never_crashes", "[qcow2][hostile]") {
  const auto variant = GENERATE(0, 1, 2);
  const std::array<qcow2::CreateOptions, 3> options = {
      qcow2::CreateOptions{.size = kMiB, .cluster_size = 4096},
      {.size = kMiB, .version = 2, .cluster_size = 4096},
      {.size = kMiB, .cluster_size = 16384, .extended_l2 = true}};
  const auto good = make_image(options[static_cast<std::size_t>(variant)]);
  Random random(static_cast<std::uint32_t>(variant) + 1);
  CHECK(use(good, random) == "");
  // The tables are the first clusters: header, refcount table, refcount block, L1, L2.
  const std::uint64_t tables = variant == 2 ? 5 * 16384 : 5 * 4096;
  unsigned refused = 0;
  for (int round = 0; round < 400; ++round) {
    auto bytes = good;
    for (auto flips = 1 + below(random, 4); flips > 0; --flips) {
      // Mostly where something is: in the header, or at the beginning of a table.
      const auto cluster = below(random, 5) * (tables / 5);
      auto& byte = bytes[cluster + below(random, below(random, 2) == 0 ? 112 : tables / 5)];
      byte = below(random, 2) == 0 ? static_cast<std::uint8_t>(random())
                                   : static_cast<std::uint8_t>(byte ^ (1U << below(random, 8)));
    }
    if (below(random, 10) == 0) {
      bytes.resize(below(random, bytes.size()));
    }
    refused += use(bytes, random).empty() ? 0 : 1;
  }
  CHECK(refused > 20);
}

TEST_CASE("qcow2_mapping_onto_tables_stops_writing_and_marks_the_image", "[qcow2][hostile]") {
  auto bytes = make_image({.size = kMiB, .cluster_size = 4096});
  const auto good = bytes;
  // L2 table at cluster 4: the entry of guest cluster 5 names the refcount table.
  store_be<std::uint64_t>(&bytes[4 * 4096 + 5 * 8], 4096 | qcow2::kCopied);
  Scheduler scheduler(1);
  SimulatedDisk disk(scheduler, bytes);
  auto image = sync_wait(scheduler, qcow2::Image::open(std::make_unique<Borrowed>(disk), {}));
  REQUIRE(image.has_value());
  REQUIRE(sync_wait(scheduler, (*image)->prepare()).has_value());
  Bytes data(512, 0xaa);
  const iovec vec{data.data(), data.size()};
  if (GENERATE(false, true)) {  // with the mapping in memory
    REQUIRE(sync_wait(scheduler, (*image)->writev(6 * 4096, {&vec, 1})).has_value());
  }
  const auto refused = sync_wait(scheduler, (*image)->writev(5 * 4096, {&vec, 1}));
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == ErrorCode::kCorrupt);
  CHECK((*image)->read_only());
  CHECK(sync_wait(scheduler, (*image)->writev(0, {&vec, 1})).error().code == ErrorCode::kCorrupt);
  CHECK(std::equal(good.begin() + 4096, good.begin() + 2 * 4096, disk.content().begin() + 4096));
  auto again = sync_wait(scheduler, qcow2::Image::open(std::make_unique<Borrowed>(disk), {}));
  REQUIRE_FALSE(again.has_value());
  CHECK(again.error().message ==
        "simulated: the image is marked corrupt: repair it with check -r all, or open it read-only");
  CHECK(sync_wait(scheduler, qcow2::Image::open(std::make_unique<Borrowed>(disk), {.read_only = true}))
            .has_value());
}

TEST_CASE("qcow2_free_count_of_a_live_table_is_noticed_before_it_is_handed_out", "[qcow2][hostile]") {
  auto bytes = make_image({.size = kMiB, .cluster_size = 4096});
  store_be<std::uint16_t>(&bytes[2 * 4096 + 4 * 2], 0);  // the refcount of the L2 table's cluster
  Scheduler scheduler(1);
  SimulatedDisk disk(scheduler, bytes);
  auto image = sync_wait(scheduler, qcow2::Image::open(std::make_unique<Borrowed>(disk), {}));
  REQUIRE(image.has_value());
  REQUIRE(sync_wait(scheduler, (*image)->prepare()).has_value());
  Bytes data(4096, 0xaa);
  const iovec vec{data.data(), data.size()};
  const auto refused = sync_wait(scheduler, (*image)->writev(200 * 4096, {&vec, 1}));
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message ==
        "simulated: qcow2: Preventing invalid write on metadata (overlaps with active L2 table)");
}
