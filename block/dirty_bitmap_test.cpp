#include "block/dirty_bitmap.hpp"

#include <catch2/catch.hpp>

using namespace whistler;

namespace {

constexpr unsigned kBits = 12;
constexpr std::uint64_t kUnit = 1 << kBits;

DirtyBitmaps::Bitmap bitmap_in(DirtyBitmaps& bitmaps, const char* name) {
  bitmaps.add(std::make_shared<DirtyBitmap>(name, DirtyBits(16 * kUnit, kBits)));
  return bitmaps.find(name);
}

}  // namespace

TEST_CASE("bitmap_records_what_changes_while_it_is_enabled", "[bitmap]") {
  DirtyBitmaps bitmaps;
  const auto bitmap = bitmap_in(bitmaps, "b");
  bitmaps.recorded(kUnit, 1);
  bitmap->enable(false);
  bitmaps.recorded(5 * kUnit, 1);
  CHECK(bitmap->count() == kUnit);
  CHECK(bitmap->bits().get(kUnit));
  CHECK(bitmaps.find("x") == nullptr);
}

TEST_CASE("bitmap_that_is_lent_keeps_later_changes_apart", "[bitmap]") {
  DirtyBitmaps bitmaps;
  const auto bitmap = bitmap_in(bitmaps, "b");
  bitmaps.recorded(0, kUnit);
  bitmap->lend();
  bitmaps.recorded(0, 1);
  bitmaps.recorded(7 * kUnit, 1);
  CHECK(bitmap->busy());
  CHECK(bitmap->bits().count() == kUnit);
  CHECK(bitmap->count() == 2 * kUnit);
  bitmap->give_back(DirtyBits(16 * kUnit, kBits));
  CHECK_FALSE(bitmap->busy());
  CHECK(bitmap->count() == 2 * kUnit);
  CHECK(bitmap->bits().get(0));
}

TEST_CASE("bitmaps_grow_with_their_disk", "[bitmap]") {
  DirtyBitmaps bitmaps;
  const auto bitmap = bitmap_in(bitmaps, "b");
  bitmap->lend();
  bitmaps.resized(32 * kUnit);
  bitmaps.recorded(31 * kUnit, 1);
  bitmap->give_back(bitmap->bits());
  CHECK(bitmap->bits().get(31 * kUnit));
  bitmaps.remove(bitmap);
  CHECK(bitmaps.all().empty());
}
