#include "block/dirty_bits.hpp"

#include <catch2/catch.hpp>

using namespace whistler;

TEST_CASE("dirty_bits_clear_takes_back_whole_units", "[dirty_bits]") {
  DirtyBits bits(10 * 512 + 100, 9);
  bits.set(0, 10 * 512 + 100);
  bits.clear(512, 1024);
  CHECK(bits.stretch(0).bytes == 512);
  CHECK_FALSE(bits.get(512));
  CHECK_FALSE(bits.get(1024));
  CHECK(bits.get(1536));
  bits.clear(10 * 512, 100);
  CHECK(bits.count() == 8 * 512);
}

TEST_CASE("dirty_bits_mark_every_granule_a_range_touches", "[dirty_bits]") {
  DirtyBits bits(100 * 512 + 1, 9);
  CHECK(bits.raw().size() == 13);
  bits.set(513, 20 * 512);
  CHECK_FALSE(bits.get(511));
  CHECK(bits.get(512));
  CHECK(bits.get(21 * 512));
  CHECK_FALSE(bits.get(22 * 512));
  CHECK(bits.stretch(0).bytes == 512);
  CHECK(bits.stretch(600).dirty);
  CHECK(bits.stretch(600).bytes == 22 * 512 - 600);
  CHECK(bits.stretch(22 * 512).bytes == 100 * 512 + 1 - 22 * 512);
  CHECK(bits.count() == 21 * 512);
}

TEST_CASE("dirty_bits_beyond_the_disk_are_left_out", "[dirty_bits]") {
  DirtyBits bits(5 * 512, 9);
  bits.set(0, ~0ULL);
  CHECK(bits.raw()[0] == 0x1f);
  bits.set(5 * 512, 1);
  bits.resize(20 * 512);
  CHECK(bits.count() == 5 * 512);
  const std::uint8_t ones[] = {0xff, 0xff, 0xff, 0xff};
  std::copy_n(ones, bits.to_load().size(), bits.to_load().begin());
  bits.loaded();
  CHECK(bits.raw()[2] == 0x0f);
  bits.resize(512);
  CHECK(bits.raw().size() == 1);
  CHECK(bits.raw()[0] == 1);
  bits.clear();
  CHECK(bits.count() == 0);
}

TEST_CASE("dirty_bits_merge_across_granularities", "[dirty_bits]") {
  DirtyBits fine(10 * 4096, 9);
  fine.set(4096 + 512, 512);
  DirtyBits coarse(10 * 4096, 12);
  coarse.merge(fine);
  CHECK(coarse.count() == 4096);
  fine.merge(coarse);
  CHECK(fine.count() == 4096);
  CHECK(fine.get(4096));
}

TEST_CASE("dirty_bits_of_a_huge_granularity_fit_one_byte", "[dirty_bits]") {
  DirtyBits bits(1 << 20, 31);
  bits.set(5, 1);
  CHECK(bits.count() == 1 << 20);
}
