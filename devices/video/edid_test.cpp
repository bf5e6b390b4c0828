#include "devices/video/edid.hpp"

#include <catch2/catch.hpp>
#include <numeric>

using namespace whistler;

TEST_CASE("edid_has_header_and_checksum", "[vga]") {
  const auto edid = make_edid(1280, 800);
  REQUIRE(edid[0] == 0x00);
  REQUIRE(edid[1] == 0xFF);
  REQUIRE(edid[7] == 0x00);
  REQUIRE(std::accumulate(edid.begin(), edid.end(), 0U) % 256 == 0);
}

TEST_CASE("edid_prefers_the_given_mode", "[vga]") {
  const auto edid = make_edid(1920, 1200);
  REQUIRE((edid[56] | (edid[58] >> 4) << 8) == 1920);
  REQUIRE((edid[59] | (edid[61] >> 4) << 8) == 1200);
  const unsigned clock_hz = (edid[54] + 256U * edid[55]) * 10'000U;
  const unsigned total = (1920 + 160) * (1200 + edid[60]);
  REQUIRE(clock_hz / total >= 59);
  REQUIRE(clock_hz / total <= 60);
}

TEST_CASE("edid_cuts_sizes_it_cannot_express", "[vga]") {
  REQUIRE(make_edid(100'000, 100'000) == make_edid(4088, 4088));
  REQUIRE(make_edid(0, 0) == make_edid(8, 8));
}
