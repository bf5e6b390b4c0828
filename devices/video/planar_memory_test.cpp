#include "devices/video/planar_memory.hpp"

#include <catch2/catch.hpp>

#include "devices/video/vga_test_kit.hpp"

using namespace whistler;
using namespace whistler::vga_test;

namespace {

struct Mode12 : Card {
  Mode12() { set_mode(kMode12); }
};
struct Mode13 : Card {
  Mode13() { set_mode(kMode13); }
};
struct Text : Card {
  Text() { set_mode(kMode03); }
};

}  // namespace

TEST_CASE_METHOD(Mode12, "planar_write_mode_0_goes_to_the_masked_planes", "[vga]") {
  sr(2, 0x05);
  poke(3, 0xA5);
  REQUIRE(std::vector<std::uint8_t>(&memory[12], &memory[16]) == std::vector<std::uint8_t>{0xA5, 0, 0xA5, 0});
}

TEST_CASE_METHOD(Mode12, "planar_write_mode_0_rotates_sets_and_combines", "[vga]") {
  poke(0, 0x0F);
  REQUIRE(peek(0) == 0x0F);  // fills the latches
  gr(0, 0x01);               // plane 0 is set,
  gr(1, 0x03);               // plane 1 reset, 2 and 3 take the data
  gr(3, 0x18 | 4);           // rotated by four and exclusive-ored
  gr(8, 0xF3);               // bits 2 and 3 stay
  poke(0, 0x21);             // rotated: 0x12
  REQUIRE(memory[0] == ((0xF0 & 0xF3) | (0x0F & 0x0C)));
  REQUIRE(memory[1] == 0x0F);
  REQUIRE(memory[2] == ((0x1D & 0xF3) | (0x0F & 0x0C)));
}

TEST_CASE_METHOD(Mode12, "planar_write_mode_1_copies_the_latches", "[vga]") {
  sr(2, 0x0A);
  poke(5, 0x77);
  sr(2, 0x0F);
  static_cast<void>(peek(5));
  gr(5, 1);
  poke(9, 0xFF);
  REQUIRE(std::vector<std::uint8_t>(&memory[36], &memory[40]) == std::vector<std::uint8_t>{0, 0x77, 0, 0x77});
}

TEST_CASE_METHOD(Mode12, "planar_write_mode_2_writes_a_colour_under_the_bit_mask", "[vga]") {
  gr(5, 2);
  gr(8, 0x81);
  static_cast<void>(peek(0));
  poke(0, 0x06);
  REQUIRE(std::vector<std::uint8_t>(memory.begin(), memory.begin() + 4) ==
          std::vector<std::uint8_t>{0, 0x81, 0x81, 0});
}

TEST_CASE_METHOD(Mode12, "planar_write_mode_3_uses_data_as_mask_for_set_reset", "[vga]") {
  gr(5, 3);
  gr(0, 0x09);
  gr(8, 0x3C);
  static_cast<void>(peek(0));
  poke(0, 0x18);
  REQUIRE(std::vector<std::uint8_t>(memory.begin(), memory.begin() + 4) ==
          std::vector<std::uint8_t>{0x18, 0, 0, 0x18});
}

TEST_CASE_METHOD(Mode12, "planar_read_mode_1_compares_colours", "[vga]") {
  sr(2, 0x03);
  poke(0, 0xF0);  // colour 3 at the left, 0 at the right
  gr(5, 0x08);
  gr(2, 0x03);
  gr(7, 0x0F);
  REQUIRE(peek(0) == 0xF0);
  gr(7, 0x00);  // nothing matters: all equal
  REQUIRE(peek(0) == 0xFF);
}

TEST_CASE_METHOD(Mode12, "planar_read_mode_0_selects_a_plane", "[vga]") {
  sr(2, 0x04);
  poke(0xFFFF, 0x5A);
  gr(4, 2);
  REQUIRE(peek(0xFFFF) == 0x5A);
  gr(4, 1);
  REQUIRE(peek(0xFFFF) == 0x00);
}

TEST_CASE_METHOD(Mode12, "window_outside_the_selected_range_reads_all_ones", "[vga]") {
  poke(0x10000, 0x12);
  REQUIRE(peek(0x10000) == 0xFF);
  gr(6, 0x09);  // B0000, 32 KiB
  poke(0x10000, 0x12);
  REQUIRE(peek(0x10000) == 0x12);
  REQUIRE(peek(0x18000) == 0xFF);
  REQUIRE(peek(0x00000) == 0xFF);
}

TEST_CASE_METHOD(Text, "odd_even_puts_characters_and_attributes_into_planes_0_and_1", "[vga]") {
  vga.window().write(kTextWindow + 4, 2, 0x1741);
  REQUIRE(memory[8] == 0x41);
  REQUIRE(memory[9] == 0x17);
  REQUIRE(vga.window().read(kTextWindow + 4, 2) == 0x1741);
}

TEST_CASE_METHOD(Mode13, "chain_4_is_linear_under_the_map_mask", "[vga]") {
  sr(2, 0x0E);
  vga.window().write(0x100, 4, 0x44332211);
  REQUIRE(std::vector<std::uint8_t>(&memory[0x100], &memory[0x104]) ==
          std::vector<std::uint8_t>{0, 0x22, 0x33, 0x44});
}

TEST_CASE_METHOD(Mode13, "linear_window_is_mapped_on_first_use_and_unmapped_with_the_mode", "[vga]") {
  REQUIRE(mapper.slots.count(kWindowSlot) == 0);
  poke(0, 1);
  REQUIRE(mapper.slots.at(kWindowSlot).address == 0xA0000);
  REQUIRE(mapper.slots.at(kWindowSlot).memory.size() == 0x10000);
  sr(4, 0x06);
  REQUIRE(mapper.slots.count(kWindowSlot) == 0);
}

TEST_CASE_METHOD(Card, "banked_window_follows_the_bank", "[vga]") {
  set_vbe(640, 480, 8);
  poke(0, 1);
  dispi(VbeDispi::kBank, 2);
  REQUIRE(mapper.slots.at(kWindowSlot).memory.data() == memory.data() + 0x20000);
  poke(5, 9);
  REQUIRE(memory[0x20005] == 9);
  dispi(VbeDispi::kEnable, 0);
  REQUIRE(peek(0) == 1);  // without VBE there are no banks
}

TEST_CASE_METHOD(Card, "pages_written_through_the_mapped_window_are_drawn", "[vga]") {
  set_vbe(640, 480, 8);
  dac(5, 63, 0, 0);
  dispi(VbeDispi::kBank, 1);
  poke(0, 0);  // maps
  vga.update();
  mapper.write(kWindowSlot, 0, 5);
  dispi(VbeDispi::kBank, 3);  // the mapping moves before the picture is drawn
  REQUIRE(pixel(0x10000 % 640, 0x10000 / 640) == 0xFF0000);
}
