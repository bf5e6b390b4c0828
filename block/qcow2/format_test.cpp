#include "block/qcow2/format.hpp"

#include <array>
#include <catch2/catch.hpp>

#include "block/qcow2/create.hpp"

using namespace whistler;
using namespace whistler::qcow2;

namespace {

constexpr Geometry kDefault{};
constexpr Geometry kExtended{.extended_l2 = true};

// With 64 KiB clusters an L2 table maps 512 MiB.
static_assert(kDefault.l2_coverage() == 512ULL << 20);
static_assert(kExtended.l2_coverage() == 256ULL << 20);
static_assert(kDefault.l1_entries_for(0) == 0);
static_assert(kDefault.l1_entries_for(1) == 1);
static_assert(kDefault.l1_entries_for(512ULL << 20) == 1);
static_assert(kDefault.l1_entries_for((512ULL << 20) + 1) == 2);
static_assert(kDefault.l1_index((512ULL << 20) - 1) == 0);
static_assert(kDefault.l2_index(65536) == 1);
static_assert(kDefault.refcounts_per_block() == 32768);
static_assert(kExtended.subcluster_size() == 2048);
static_assert(kExtended.subcluster_index(65535) == 31);
static_assert(kDefault.clusters_for(65537) == 2);

// Classification of standard entries.
static_assert(kDefault.classify({}, 0) == Mapping{Kind::kUnallocated, {}});
static_assert(kDefault.classify({0x50000 | kCopied}, 0) == Mapping{Kind::kData, 0x50000});
static_assert(kDefault.classify({kZeroFlag}, 0) == Mapping{Kind::kZero, {}});
static_assert(kDefault.classify({0x50000 | kCopied | kZeroFlag}, 0) == Mapping{Kind::kZero, 0x50000});
static_assert(kDefault.classify({0x50200}, 0).kind == Kind::kInvalid);
static_assert(kDefault.classify({kCompressedFlag | 0x50001}, 0).kind == Kind::kCompressed);
static_assert(Geometry{.version = 2}.classify({kZeroFlag}, 0).kind == Kind::kUnallocated);
static_assert(Geometry{.external_data = true}.classify({kCopied}, 0) == Mapping{Kind::kData, 0});
static_assert(Geometry{.external_data = true}.classify({kCompressedFlag | 1}, 0).kind == Kind::kInvalid);

// Subclusters: bit 3 allocated, bit 4 zero.
constexpr L2Entry kSplit{0x50000 | kCopied, 1ULL << 3 | 1ULL << (32 + 4)};
static_assert(kExtended.classify(kSplit, 3).kind == Kind::kData);
static_assert(kExtended.classify(kSplit, 4) == Mapping{Kind::kZero, 0x50000});
static_assert(kExtended.classify(kSplit, 5) == Mapping{Kind::kUnallocated, 0x50000});
static_assert(kExtended.classify({0x50000, 1ULL | 1ULL << 32}, 0).kind == Kind::kInvalid);
static_assert(kExtended.classify({0, 1}, 0).kind == Kind::kInvalid);

// A compressed cluster of 1000 bytes at 0x50010 touches two sectors.
static_assert(kDefault.compressed_entry(0x50010, 1000) == (kCompressedFlag | 1ULL << 54 | 0x50010));
static_assert(kDefault.compressed_extent(kDefault.compressed_entry(0x50010, 1000)).offset == 0x50010);
static_assert(kDefault.compressed_extent(kDefault.compressed_entry(0x50010, 1000)).bytes == 1024 - 0x10);

// Growth of the refcount structures.
constexpr auto kPlain = plan_refcount_growth(kDefault, 1, 8192, 0);
static_assert(kPlain.blocks == 1 && kPlain.table_clusters == 0 && kPlain.first_cluster == 32768);
constexpr auto kMoved = plan_refcount_growth(kDefault, 8192, 8192, 0);
static_assert(kMoved.table_clusters == 2 && kMoved.extra_first() == kMoved.first_cluster + 3);
// 512-byte clusters with 64-bit refcounts: 64 clusters a block, 64 entries a table cluster.
constexpr Geometry kTiny{.cluster_bits = 9, .refcount_order = 6};
constexpr auto kTinyGrowth = plan_refcount_growth(kTiny, 64, 64, 200);
static_assert(kTinyGrowth.blocks * 64 >= kTinyGrowth.blocks + kTinyGrowth.table_clusters + 200);
static_assert(kTinyGrowth.table_clusters * 64 >= 64 + kTinyGrowth.blocks);
// Blocks in advance: as many as the image is large enough for, up to the end of a sector of the table.
static_assert(plan_refcount_growth(kTiny, 31, 8192, 0).blocks == 1);
static_assert(plan_refcount_growth(kTiny, 640, 8192, 0).blocks == 40);
static_assert(plan_refcount_growth(kTiny, 8000, 8192, 0).blocks == 64);
static_assert(plan_refcount_growth(kTiny, 8010, 8192, 0).blocks == 54);
static_assert(plan_refcount_growth(kDefault, 4000, 8192, 0).blocks == 1);

}  // namespace

TEST_CASE("refcount_of_every_width_is_stored_without_touching_neighbours", "[qcow2]") {
  const auto order = GENERATE(range(0U, 7U));
  const Geometry geometry{.refcount_order = order};
  std::array<std::uint8_t, 128> block{};
  const auto value = geometry.max_refcount();
  store_refcount(block.data(), 5, order, value);
  CHECK(load_refcount(block.data(), 5, order) == value);
  CHECK(load_refcount(block.data(), 4, order) == 0);
  CHECK(load_refcount(block.data(), 6, order) == 0);
  store_refcount(block.data(), 4, order, 1);
  store_refcount(block.data(), 5, order, 0);
  CHECK(load_refcount(block.data(), 4, order) == 1);
  CHECK(load_refcount(block.data(), 5, order) == 0);
}

TEST_CASE("layout_of_any_geometry_covers_itself", "[qcow2]") {
  const auto cluster_bits = GENERATE(9U, 12U, 16U, 21U);
  const auto order = GENERATE(0U, 4U, 6U);
  const Geometry geometry{.cluster_bits = cluster_bits, .refcount_order = order};
  const std::uint64_t largest = kMaxL1Bytes / 8 * geometry.l2_coverage();
  const auto layout = plan_layout(geometry, largest);
  CHECK(layout.blocks << geometry.refcount_block_bits() >= layout.total());
  CHECK(layout.table_clusters << cluster_bits >= layout.blocks * 8);
  CHECK(layout.l1_clusters << cluster_bits >= layout.l1_entries * 8);
}
