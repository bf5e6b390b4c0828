#include "tools/img/copier.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <catch2/catch.hpp>

#include "block/memory.hpp"
#include "block/uring/ring.hpp"

using namespace whistler;
using namespace whistler::tools;

namespace {

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kCluster = 64 * kKiB;
/// What the copier is to write at once.
constexpr std::uint64_t kWhole = 512 * kKiB;

/// Lays clusters out in the order in which they are first written, behind a header and, for every 8 MiB of
/// the disk, a table, as an image does. Answers at once.
class GrowingDisk final : public BlockDevice {
 public:
  explicit GrowingDisk(std::uint64_t size) : disk_(size), clusters_((size + kCluster - 1) / kCluster) {}

  [[nodiscard]] std::uint64_t growth_begin() const { return end_; }
  /// How many writes were a whole block of the file, at a multiple of its size.
  [[nodiscard]] unsigned whole() const { return whole_; }
  [[nodiscard]] unsigned others() const { return others_; }
  [[nodiscard]] std::vector<std::uint8_t>& bytes() { return disk_.bytes(); }

  [[nodiscard]] std::uint64_t size() const override { return disk_.size(); }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] std::string name() const override { return "growing"; }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    return disk_.readv(offset, to);
  }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags) override {
    const auto bytes = iovec_bytes(from);
    for (auto at = offset; at < offset + bytes; at = (at / kCluster + 1) * kCluster) {
      auto& cluster = clusters_[at / kCluster];
      if (cluster == 0) {
        auto& table = tables_[at / (8 * kMiB)];
        end_ += table ? 0 : kCluster;
        table = true;
        cluster = std::exchange(end_, end_ + kCluster);
      }
    }
    const auto place = clusters_[offset / kCluster] + offset % kCluster;
    ++(place % kWhole == 0 && bytes == kWhole ? whole_ : others_);
    return disk_.writev(offset, from);
  }
  [[nodiscard]] Task<Result<void>> flush() override { return disk_.flush(); }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override {
    return disk_.discard(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags) override {
    return disk_.write_zeroes(offset, bytes, flags);
  }
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return disk_.block_status(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override { return disk_.resize(bytes); }
  [[nodiscard]] Task<Result<void>> close() override { return disk_.close(); }

 private:
  MemoryBlockDevice disk_;
  std::vector<std::uint64_t> clusters_;  ///< where each lies in the file; 0: nowhere
  std::array<bool, 16> tables_{};
  std::uint64_t end_ = 4 * kCluster;
  unsigned whole_ = 0;
  unsigned others_ = 0;
};

void fill(MemoryBlockDevice& disk, std::uint64_t begin, std::uint64_t end) {
  for (auto at = begin; at < end; at += 512) {
    disk.bytes()[at] = static_cast<std::uint8_t>(1 + at % 251);
  }
}

void copy(MemoryBlockDevice& source, GrowingDisk& target, CopyOptions options) {
  const auto ring = Ring::create();
  REQUIRE(ring.has_value());
  Progress progress(false);
  options.target_zero = true;
  options.alignment = std::max(options.alignment, std::bit_floor(options.min_zero));
  options.layout = {
      {.cluster = kCluster, .stretch = 0, .growth_begin = [&target] { return target.growth_begin(); }}};
  Copier copier({{.device = &source, .bytes = source.size()}}, target, options, progress, {});
  REQUIRE(sync_wait(**ring, copier.run()).has_value());
  CHECK(target.bytes() == source.bytes());
}

}  // namespace

TEST_CASE("copier_writes_whole_blocks_of_a_growing_file", "[convert]") {
  MemoryBlockDevice source(64 * kMiB);
  fill(source, 0, source.size());
  GrowingDisk target(source.size());
  SECTION("in order") { copy(source, target, {}); }
  SECTION("in any order") { copy(source, target, {.in_order = false}); }
  SECTION("with a grid of zeroes as long as a cluster") { copy(source, target, {.min_zero = kCluster}); }
  // Each of the eight tables puts the rest off, which costs up to three blocks that are cut.
  CHECK(target.whole() >= 64 * kMiB / kWhole - 3 * 8);
  CHECK(target.others() <= 4 * 8);
}

TEST_CASE("copier_finds_the_blocks_of_a_growing_file_again_behind_zeroes", "[convert]") {
  MemoryBlockDevice source(64 * kMiB);
  fill(source, 3 * kCluster, 10 * kMiB);
  fill(source, 20 * kMiB + kCluster, 40 * kMiB);
  fill(source, 60 * kMiB + 4 * kKiB, source.size());
  GrowingDisk target(source.size());
  copy(source, target, {});
  CHECK(target.whole() >= 34 * kMiB / kWhole - 3 * 8);
}

TEST_CASE("copier_cuts_by_the_disk_where_cuts_decide_what_is_zero", "[convert]") {
  // A run of zeroes must be longer than the unit it is counted in: one that a cut meets counts always.
  MemoryBlockDevice source(16 * kMiB);
  fill(source, 0, source.size());
  GrowingDisk target(source.size());
  copy(source, target, {.min_zero = 5 * kKiB});
  CHECK(target.whole() == 0);
  CHECK(target.others() == 32);
}

TEST_CASE("copier_keeps_to_the_grid_that_pieces_must_end_at", "[convert]") {
  MemoryBlockDevice source(16 * kMiB);
  fill(source, 0, source.size());
  GrowingDisk target(source.size());
  copy(source, target, {.alignment = kMiB});  // which the file's blocks do not meet
  CHECK(target.whole() == 0);
  CHECK(target.others() == 16);
}
