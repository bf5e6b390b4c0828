#include "devices/core/guest_memory.hpp"

#include <array>
#include <catch2/catch.hpp>

using namespace whistler;

TEST_CASE("copy_across_two_regions_and_a_hole_reports_the_hole", "[memory]") {
  std::vector<std::uint8_t> low(4096, 1);
  std::vector<std::uint8_t> high(4096, 2);
  GuestMemory memory;
  memory.add(0, low);
  memory.add(8192, high);
  std::vector<std::uint8_t> buffer(12288);
  REQUIRE_FALSE(memory.read(0, buffer));
  REQUIRE(buffer[4095] == 1);
  REQUIRE(buffer[4096] == 0xFF);
  REQUIRE(buffer[8192] == 2);
}

TEST_CASE("slice_stops_at_the_end_of_ram", "[memory]") {
  std::vector<std::uint8_t> low(4096);
  GuestMemory memory;
  memory.add(0, low);
  REQUIRE(memory.slice(4000, 1000).size() == 96);
  REQUIRE(memory.slice(4096, 1).empty());
  REQUIRE(memory.slice(~0ULL, 8).empty());
}

TEST_CASE("write_at_the_top_of_the_address_space_is_dropped", "[memory]") {
  std::vector<std::uint8_t> low(4096);
  GuestMemory memory;
  memory.add(0, low);
  const std::array<std::uint8_t, 4> data = {1, 2, 3, 4};
  REQUIRE_FALSE(memory.write(~0ULL - 1, data));
}
