#include "devices/input/scan_codes.hpp"

#include <catch2/catch.hpp>
#include <set>

using namespace whistler;

TEST_CASE("set2_codes_translate_back_to_every_set1_code", "[scan_codes]") {
  for (std::uint8_t code = 1; code < 0x80; ++code) {
    CAPTURE(int{code});
    REQUIRE(set2_to_set1(set1_to_set2(code)) == code);
  }
}

TEST_CASE("translation_table_is_one_to_one", "[scan_codes]") {
  const std::set<std::uint8_t> results(kSet2ToSet1.begin(), kSet2ToSet1.end());
  REQUIRE(results.size() == kSet2ToSet1.size());
}

TEST_CASE("well_known_keys_have_their_codes", "[scan_codes]") {
  REQUIRE(set1_to_set2(0x1E) == 0x1C);  // A
  REQUIRE(set1_to_set2(0x01) == 0x76);  // Esc
  REQUIRE(set1_to_set2(0x1C) == 0x5A);  // Enter
  REQUIRE(set1_to_set2(0x39) == 0x29);  // space
  REQUIRE(set1_to_set2(0x41) == 0x83);  // F7
  REQUIRE(set2_to_set1(0xFA) == 0xFA);
  REQUIRE(set3_code(0x1E) == 0x1C);
  REQUIRE(set3_code(0xC8) == 0x63);
  REQUIRE_FALSE(set3_code(0x00).has_value());
}
