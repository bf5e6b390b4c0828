#include "base/bytes.hpp"

#include <array>
#include <catch2/catch.hpp>

using namespace whistler;

TEST_CASE("load_and_store_unaligned_keep_byte_order", "[bytes]") {
  std::array<std::uint8_t, 8> memory{};
  store_le<std::uint32_t>(&memory[1], 0x11223344);
  REQUIRE(memory[1] == 0x44);
  REQUIRE(load_le<std::uint32_t>(&memory[1]) == 0x11223344);
  REQUIRE(load_be<std::uint32_t>(&memory[1]) == 0x44332211);
}

TEST_CASE("be_field_is_stored_most_significant_first", "[bytes]") {
  struct Header {
    Be<std::uint32_t> magic;
    Be<std::uint64_t> size;
  };
  static_assert(sizeof(Header) == 12);
  Be<std::uint16_t> field = 0x1234;
  REQUIRE(field == 0x1234);
  REQUIRE(std::bit_cast<std::array<std::uint8_t, 2>>(field)[0] == 0x12);
}

TEST_CASE("align_up_and_down_are_multiples_of_the_unit", "[bytes]") {
  REQUIRE(align_down(513, 512) == 512);
  REQUIRE(align_up(513, 512) == 1024);
  REQUIRE(align_up(512, 512) == 512);
}
