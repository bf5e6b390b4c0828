#include "vmm/plan/animation.hpp"

#include <catch2/catch.hpp>
#include <fstream>
#include <string>

#include "base/bytes.hpp"
#include "vmm/test_folder.hpp"

using namespace whistler;
using namespace whistler::plan;

namespace {

constexpr Picture::Pixel kRed = {200, 0, 0, 255};
constexpr Picture::Pixel kBlue = {0, 0, 200, 255};

Picture plain(unsigned width, unsigned height, Picture::Pixel colour) {
  return {.width = width, .height = height, .pixels = std::vector(std::size_t{width} * height, colour)};
}

/// The kinds of its chunks, in their order.
std::vector<std::string> kinds(const std::vector<std::uint8_t>& file) {
  std::vector<std::string> found;
  for (std::size_t at = 8; at + 12 <= file.size(); at += 12 + load_be<std::uint32_t>(&file[at])) {
    found.emplace_back(file.begin() + static_cast<std::ptrdiff_t>(at) + 4,
                       file.begin() + static_cast<std::ptrdiff_t>(at) + 8);
  }
  return found;
}

}  // namespace

TEST_CASE("animation: a frame for each picture, in the order that APNG wants") {
  const std::vector frames = {plain(2, 1, kRed), plain(2, 1, kBlue), plain(2, 1, kRed)};
  const auto file = animated_png(frames);
  REQUIRE(file);
  CHECK(kinds(*file) ==
        std::vector<std::string>{"IHDR", "acTL", "fcTL", "IDAT", "fcTL", "fdAT", "fcTL", "fdAT", "IEND"});
}

TEST_CASE("animation: it is as large as its largest picture, and a program that knows PNG shows the first") {
  const TestFolder folder;
  const std::vector frames = {plain(2, 1, kRed), plain(1, 3, kBlue)};
  const auto file = animated_png(frames);
  REQUIRE(file);
  std::ofstream(folder / "a.png", std::ios::binary)
      .write(reinterpret_cast<const char*>(file->data()), static_cast<std::streamsize>(file->size()));
  const auto first = read_png(folder / "a.png");
  REQUIRE(first);
  CHECK(first->width == 2);
  CHECK(first->height == 3);
  CHECK(first->at(1, 0) == kRed);
  CHECK(first->at(0, 2) == Picture::Pixel{0, 0, 0, 255});
}

TEST_CASE("animation: one picture is one too") {
  const std::vector frames = {plain(1, 1, kRed)};
  const auto file = animated_png(frames);
  REQUIRE(file);
  CHECK(kinds(*file) == std::vector<std::string>{"IHDR", "acTL", "fcTL", "IDAT", "IEND"});
}
