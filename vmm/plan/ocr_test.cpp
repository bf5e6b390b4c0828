#include "vmm/plan/ocr.hpp"

#include <catch2/catch.hpp>

using namespace whistler::plan;

namespace {

constexpr Picture::Pixel kWhite = {255, 255, 255, 255};
constexpr Picture::Pixel kBlack = {0, 0, 0, 255};

unsigned value(const std::string& pgm, std::size_t at) { return static_cast<unsigned char>(pgm[at]); }

}  // namespace

TEST_CASE("ocr: a small picture is made three times as large, with smooth edges") {
  const Picture picture = {.width = 2, .height = 1, .pixels = {kWhite, kBlack}};
  const auto pgm = picture_to_read(picture);
  const std::string head = "P5\n6 3\n255\n";
  REQUIRE(pgm.substr(0, head.size()) == head);
  REQUIRE(pgm.size() == head.size() + 18);
  const auto row = pgm.substr(head.size() + 6, 6);
  CHECK(value(row, 0) == 255);
  CHECK(value(row, 1) == 255);
  CHECK(value(row, 2) == 170);
  CHECK(value(row, 3) == 85);
  CHECK(value(row, 4) == 0);
  CHECK(value(row, 5) == 0);
}

TEST_CASE("ocr: a large picture stays as it is, in grey") {
  Picture picture = {.width = 1920, .height = 1, .pixels = std::vector(1920, kBlack)};
  picture.pixels[0] = {255, 0, 0, 255};
  picture.pixels[1919] = {0, 255, 0, 255};
  const auto pgm = picture_to_read(picture);
  const std::string head = "P5\n1920 1\n255\n";
  REQUIRE(pgm.substr(0, head.size()) == head);
  CHECK(value(pgm, head.size()) == 76);
  CHECK(value(pgm, head.size() + 1) == 0);
  CHECK(value(pgm, head.size() + 1919) == 149);
}
