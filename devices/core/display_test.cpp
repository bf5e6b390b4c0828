#include "devices/core/display.hpp"

#include <array>
#include <catch2/catch.hpp>

using namespace whistler;

TEST_CASE("new_surface_is_all_changed_for_a_new_viewer", "[display]") {
  Surface surface;
  surface.resize(640, 480);
  REQUIRE(surface.changes_since(0) == std::vector{Rect{0, 0, 640, 480}});
  REQUIRE(surface.changes_since(surface.generation()).empty());
}

TEST_CASE("put_marks_only_the_tile_that_differs", "[display]") {
  Surface surface;
  surface.resize(640, 480);
  const auto seen = surface.generation();
  const std::array<std::uint32_t, 2> pixels = {0xFF0000, 0};
  surface.put(127, 20, pixels);
  REQUIRE(surface.changes_since(seen) == std::vector{Rect{64, 16, 64, 16}});
  REQUIRE(surface.row(20)[127] == 0xFF0000);
}

TEST_CASE("put_beyond_the_edge_is_clipped", "[display]") {
  Surface surface;
  surface.resize(100, 10);
  const std::vector<std::uint32_t> pixels(200, 1);
  surface.put(90, 9, pixels);
  surface.put(0, 10, pixels);
  REQUIRE(surface.row(9)[99] == 1);
}

TEST_CASE("text_line_is_utf8_without_trailing_blanks", "[display]") {
  TextScreen screen{4, 1, {'H', 0xC4, ' ', 0}, {7, 7, 7, 7}, std::nullopt};
  REQUIRE(screen.line(0) == "H─");
}
