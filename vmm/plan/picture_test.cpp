#include "vmm/plan/picture.hpp"

#include <catch2/catch.hpp>
#include <fstream>

#include "devices/core/display.hpp"
#include "vmm/monitor/screen_file.hpp"
#include "vmm/test_folder.hpp"

using namespace whistler;
using namespace whistler::plan;

namespace {

constexpr Picture::Pixel kRed = {200, 0, 0, 255};
constexpr Picture::Pixel kBlue = {0, 0, 200, 255};
constexpr Picture::Pixel kNothing = {0, 0, 0, 0};
constexpr Picture::Pixel kWhite = {255, 255, 255, 255};
constexpr Picture::Pixel kBlack = {0, 0, 0, 255};

Picture picture(unsigned width, std::vector<Picture::Pixel> pixels) {
  const auto height = static_cast<unsigned>(pixels.size()) / width;
  return {.width = width, .height = height, .pixels = std::move(pixels)};
}

/// Red, with one blue pixel in the middle.
const Picture kScreen = picture(3, {kRed, kRed, kRed, kRed, kBlue, kRed, kRed, kRed, kRed});

}  // namespace

TEST_CASE("picture: a screen that was written is read again") {
  const TestFolder folder;
  Surface surface;
  surface.resize(5, 4);
  const std::uint32_t pixel = 0x00123456;
  surface.put(2, 1, std::span(&pixel, 1));
  REQUIRE(write_picture(surface, folder / "a.png", PictureFormat::kPng));
  const auto read = read_png(folder / "a.png");
  REQUIRE(read);
  CHECK(read->width == 5);
  CHECK(read->height == 4);
  CHECK(read->at(2, 1) == Picture::Pixel{0x12, 0x34, 0x56, 255});
  CHECK(read->at(0, 0) == kBlack);
}

TEST_CASE("picture: files that are no PNG are refused") {
  const TestFolder folder;
  std::ofstream(folder / "a.png") << "GIF89a";
  CHECK_FALSE(read_png(folder / "a.png"));
  CHECK_FALSE(read_png(folder / "none.png"));
}

TEST_CASE("picture: a part is found where it is and nowhere else") {
  const auto part = picture(2, {kBlue, kRed});
  CHECK(share_different(kScreen, part, nullptr, {.x = 1, .y = 1}) == 0);
  CHECK(share_different(kScreen, part, nullptr, {.x = 0, .y = 1}) == 100);
  CHECK(share_different(kScreen, part, nullptr, {.x = 1, .y = 0}) == 50);
}

TEST_CASE("picture: a part that does not fit is altogether different") {
  const auto part = picture(2, {kBlue, kRed});
  CHECK(share_different(kScreen, part, nullptr, {.x = 2, .y = 1}) == 100);
  CHECK(share_different(kScreen, part, nullptr, {.x = 0xFFFFFFFF, .y = 1}) == 100);
}

TEST_CASE("picture: tolerance is for each colour") {
  const auto part = picture(1, {{195, 5, 0, 255}});
  CHECK(share_different(kScreen, part, nullptr, {.tolerance = 4}) == 100);
  CHECK(share_different(kScreen, part, nullptr, {.tolerance = 5}) == 0);
}

TEST_CASE("picture: what is masked or transparent does not count, and nothing at all is no match") {
  const auto mask = picture(2, {kBlack, kWhite});
  CHECK(share_different(kScreen, picture(2, {kWhite, kRed}), &mask, {}) == 0);
  CHECK(share_different(kScreen, picture(2, {kNothing, kRed}), nullptr, {}) == 0);
  CHECK(share_different(kScreen, picture(1, {kNothing}), nullptr, {}) == 100);
}

TEST_CASE("picture: pixels that differ are counted; another size differs altogether") {
  auto other = kScreen;
  other.pixels[0] = kBlue;
  CHECK(different_pixels(kScreen, kScreen) == 0);
  CHECK(different_pixels(kScreen, other) == 1);
  CHECK(different_pixels(kScreen, picture(1, {kRed})) == 9);
}
