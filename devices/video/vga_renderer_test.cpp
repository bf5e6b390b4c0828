#include "devices/video/vga_renderer.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "devices/video/vga_test_kit.hpp"

using namespace whistler;
using namespace whistler::vga_test;

namespace {

struct Text : Card {
  Text() {
    set_mode(kMode03);
    cr(0x0A, 0x20);  // no cursor
    define_glyph('A', {0x18, 0x81});
    define_glyph(0xC4, {0x01});
  }
  /// The first rows of a character in font 0; written through planar access as a BIOS does.
  void define_glyph(unsigned character, std::initializer_list<unsigned> rows, unsigned font = 0) {
    sr(2, 0x04);
    sr(4, 0x06);
    gr(5, 0x00);
    gr(6, 0x04);
    std::uint32_t at = font * 0x2000 + character * 32;
    for (const auto row : rows) {
      poke(at++, row);
    }
    sr(2, 0x03);
    sr(4, 0x02);
    gr(5, 0x10);
    gr(6, 0x0E);
  }
  void put(unsigned column, unsigned row, unsigned character, unsigned attributes) {
    vga.window().write(kTextWindow + (row * 80 + column) * 2, 2, character | attributes << 8);
  }
  /// Dots of `count` pixels from (x, y): '#' where they have the colour `ink`.
  std::string dots(unsigned x, unsigned y, unsigned count, std::uint32_t ink) {
    vga.update();
    std::string drawn;
    for (unsigned i = 0; i < count; ++i) {
      drawn += vga.surface().row(y)[x + i] == ink ? '#' : '.';
    }
    return drawn;
  }
  /// Colour of text colour `i` under the mode's attribute palette.
  static std::uint32_t text_color(unsigned i) { return color(kMode03.ar[i]); }
};

struct Vbe : Card {
  /// A mode with its first bytes of memory.
  void show(unsigned bpp, std::initializer_list<unsigned> bytes) {
    set_vbe(640, 480, bpp);
    std::size_t at = 0;
    for (const auto byte : bytes) {
      memory[at++] = static_cast<std::uint8_t>(byte);
    }
    map_framebuffer();
  }
};

}  // namespace

TEST_CASE_METHOD(Card, "picture_before_any_mode_is_black_640x480", "[vga]") {
  vga.update();
  REQUIRE(vga.surface().width() == 640);
  REQUIRE(vga.surface().height() == 480);
  REQUIRE(vga.surface().row(0)[0] == 0);
}

TEST_CASE_METHOD(Text, "text_glyph_is_drawn_nine_dots_wide", "[vga]") {
  put(2, 1, 'A', 0x17);
  REQUIRE(dots(18, 16, 9, text_color(7)) == "...##....");
  REQUIRE(dots(18, 17, 9, text_color(7)) == "#......#.");
  REQUIRE(pixel(18, 16) == text_color(1));
  REQUIRE(vga.surface().width() == 720);
  REQUIRE(vga.surface().height() == 400);
}

TEST_CASE_METHOD(Text, "text_line_graphics_repeat_the_eighth_dot", "[vga]") {
  put(0, 0, 0xC4, 0x07);
  REQUIRE(dots(0, 0, 9, text_color(7)) == ".......##");
  ar(0x10, 0x08);
  REQUIRE(dots(0, 0, 9, text_color(7)) == ".......#.");
}

TEST_CASE_METHOD(Text, "text_attribute_bit_3_selects_the_second_font", "[vga]") {
  define_glyph('A', {0xFF},
               2);  // font at 16 KiB is number 1 of the map select: bits 3 and 2 for the second set
  sr(3, 0x04);
  put(0, 0, 'A', 0x0F);
  put(1, 0, 'A', 0x07);
  REQUIRE(dots(0, 0, 9, text_color(15)) == "########.");
  REQUIRE(dots(9, 0, 9, text_color(7)) == "...##....");
}

TEST_CASE_METHOD(Text, "text_cursor_covers_its_rows_and_blinks", "[vga]") {
  cr(0x0A, 0x0D);
  cr(0x0B, 0x0E);
  cr(0x0E, 0x00);
  cr(0x0F, 81);  // second row, second column
  put(1, 1, ' ', 0x07);
  REQUIRE(dots(9, 16 + 12, 9, text_color(7)) == ".........");
  REQUIRE(dots(9, 16 + 13, 9, text_color(7)) == "#########");
  REQUIRE(dots(9, 16 + 15, 9, text_color(7)) == ".........");
  clock.advance(300'000'000);
  REQUIRE(dots(9, 16 + 13, 9, text_color(7)) == ".........");
  REQUIRE(vga.text()->cursor == 81U);
}

TEST_CASE_METHOD(Text, "text_attribute_bit_7_blinks_or_brightens", "[vga]") {
  put(0, 0, 'A', 0x97);
  REQUIRE(dots(0, 0, 9, text_color(7)) == "...##....");
  REQUIRE(pixel(0, 0) == text_color(1));
  clock.advance(600'000'000);
  REQUIRE(dots(0, 0, 9, text_color(1)) == "#########");
  ar(0x10, 0x04);
  REQUIRE(pixel(0, 0) == text_color(9));
  REQUIRE(pixel(3, 0) == text_color(7));
}

TEST_CASE_METHOD(Text, "text_mono_underlines_attribute_1", "[vga]") {
  cr(0x14, 0x0C);
  put(0, 0, ' ', 0x01);
  REQUIRE(dots(0, 12, 9, text_color(1)) == ".........");
  ar(0x10, 0x0E);
  REQUIRE(dots(0, 12, 9, text_color(1)) == "#########");
  REQUIRE(dots(0, 13, 9, text_color(1)) == ".........");
}

TEST_CASE_METHOD(Text, "text_of_forty_columns_has_doubled_dots", "[vga]") {
  cr(0x11, 0x00);
  cr(0x01, 0x27);
  cr(0x13, 0x14);
  sr(1, 0x08);
  put(0, 0, 'A', 0x07);
  REQUIRE(dots(0, 0, 18, text_color(7)) == "......####........");
  REQUIRE(vga.surface().width() == 720);
  REQUIRE(vga.text()->columns == 40);
}

TEST_CASE_METHOD(Text, "text_of_fifty_rows_and_eight_dots_is_640_wide", "[vga]") {
  cr(0x09, 0x47);
  sr(1, 0x01);
  ar(0x13, 0x00);
  put(0, 49, 'A', 0x07);
  REQUIRE(dots(0, 392, 8, text_color(7)) == "...##...");
  REQUIRE(vga.surface().width() == 640);
  REQUIRE(vga.text()->rows == 50);
}

TEST_CASE_METHOD(Text, "text_screen_gives_lines_from_the_start_address", "[vga]") {
  const std::string hello = "Hello";
  for (unsigned i = 0; i < hello.size(); ++i) {
    put(i, 25, static_cast<std::uint8_t>(hello[i]), 0x07);
  }
  cr(0x0D, 80);
  const auto screen = vga.text();
  REQUIRE(screen->columns == 80);
  REQUIRE(screen->rows == 25);
  REQUIRE(screen->line(24) == "Hello");
  REQUIRE_FALSE(screen->cursor.has_value());
}

TEST_CASE_METHOD(Text, "text_unchanged_leaves_the_surface_alone", "[vga]") {
  put(0, 0, 'A', 0x07);
  vga.update();
  const auto generation = vga.surface().generation();
  clock.advance(5'000'000'000);
  vga.update();
  REQUIRE(vga.surface().generation() == generation);
  put(79, 24, 'A', 0x07);
  vga.update();
  REQUIRE(vga.surface().changes_since(generation) == std::vector<Rect>{{704, 384, 16, 16}});
}

TEST_CASE_METHOD(Text, "text_redefined_glyph_is_drawn_anew", "[vga]") {
  put(0, 0, 'A', 0x07);
  REQUIRE(dots(0, 0, 9, text_color(7)) == "...##....");
  define_glyph('A', {0xF0});
  REQUIRE(dots(0, 0, 9, text_color(7)) == "####.....");
}

TEST_CASE_METHOD(Text, "text_pans_by_dots_and_preset_row", "[vga]") {
  put(0, 0, 'A', 0x07);
  ar(0x13, 0x01);  // two dots
  REQUIRE(dots(0, 0, 9, text_color(7)) == ".##......");
  cr(0x08, 0x01);
  REQUIRE(dots(0, 0, 9, text_color(7)) == ".....#...");
}

TEST_CASE_METHOD(Text, "text_split_screen_starts_at_address_0", "[vga]") {
  put(0, 0, 'A', 0x07);
  cr(0x0C, 0x08);
  cr(0x11, 0x00);
  cr(0x07, 0x0F);  // line compare below 256
  cr(0x09, 0x0F);
  cr(0x18, 99);
  REQUIRE(dots(0, 0, 9, text_color(7)) == ".........");
  REQUIRE(dots(0, 100, 9, text_color(7)) == "...##....");
}

TEST_CASE_METHOD(Text, "screen_off_is_black_in_the_same_size", "[vga]") {
  put(0, 0, 0xDB, 0x70);
  REQUIRE(pixel(0, 0) == text_color(7));
  sr(1, 0x20);
  REQUIRE(pixel(0, 0) == 0);
  REQUIRE(vga.surface().width() == 720);
  REQUIRE_FALSE(vga.text().has_value());
  sr(1, 0x00);
  REQUIRE(pixel(0, 0) == text_color(7));
  static_cast<void>(in(0x3DA));
  out(0x3C0, 0x00);  // palette address source
  REQUIRE(pixel(0, 0) == 0);
}

TEST_CASE_METHOD(Card, "mode_12h_shows_planes_as_colours", "[vga]") {
  set_mode(kMode12);
  sr(2, 0x01);
  poke(80 * 2 + 1, 0x80);
  sr(2, 0x08);
  poke(80 * 2 + 1, 0xC0);
  REQUIRE(pixel(8, 2) == color(9));
  REQUIRE(pixel(9, 2) == color(8));
  REQUIRE(pixel(10, 2) == color(0));
  REQUIRE(vga.surface().width() == 640);
  REQUIRE(vga.surface().height() == 480);
  ar(0x12, 0x07);  // plane 3 no longer counts
  REQUIRE(pixel(9, 2) == color(0));
}

TEST_CASE_METHOD(Card, "mode_12h_pans_by_pixels", "[vga]") {
  set_mode(kMode12);
  poke(0, 0x01);
  poke(80, 0x80);
  ar(0x13, 0x07);
  REQUIRE(pixel(0, 0) == color(15));
  cr(0x08, 0x20);  // a byte more
  cr(0x0D, 79);
  ar(0x13, 0x00);
  REQUIRE(pixel(0, 0) == color(15));
}

TEST_CASE_METHOD(Card, "mode_0dh_doubles_pixels_both_ways", "[vga]") {
  set_mode(kMode0D);
  poke(40 + 1, 0x40);
  REQUIRE(vga.surface().width() == 640);
  REQUIRE(pixel(18, 2) == color(15));
  REQUIRE(pixel(19, 3) == color(15));
  REQUIRE(pixel(20, 2) == color(0));
  REQUIRE(pixel(18, 4) == color(0));
  REQUIRE(vga.surface().width() == 640);
  REQUIRE(vga.surface().height() == 400);
}

TEST_CASE_METHOD(Card, "mode_13h_is_640x400_with_two_by_two_pixels", "[vga]") {
  set_mode(kMode13);
  poke(320 * 199 + 319, 0x2A);
  REQUIRE(pixel(638, 398) == color(0x2A));
  REQUIRE(pixel(639, 399) == color(0x2A));
  REQUIRE(pixel(637, 399) == color(0));
  REQUIRE(vga.surface().width() == 640);
  REQUIRE(vga.surface().height() == 400);
}

TEST_CASE_METHOD(Card, "mode_x_shows_four_planes_side_by_side", "[vga]") {
  set_mode(kMode13);
  sr(4, 0x06);
  cr(0x14, 0x00);
  cr(0x17, 0xE3);
  sr(2, 0x04);
  poke(80 + 3, 0x11);  // second line, pixel 3 * 4 + 2
  REQUIRE(pixel(28, 2) == color(0x11));
  REQUIRE(pixel(26, 2) == color(0));
  cr(0x0D, 80);
  REQUIRE(pixel(28, 0) == color(0x11));
  ar(0x13, 0x04);  // two pixels
  REQUIRE(pixel(24, 0) == color(0x11));
}

TEST_CASE_METHOD(Card, "mode_4_interleaves_two_banks_of_two_bit_pixels", "[vga]") {
  set_mode(kMode04);
  poke(kTextWindow, 0xC0);
  poke(kTextWindow + 1, 0x02);
  poke(kTextWindow + 0x2000, 0x40);
  poke(kTextWindow + 80, 0x80);
  vga.update();
  REQUIRE(vga.surface().width() == 640);
  REQUIRE(vga.surface().height() == 400);
  REQUIRE(pixel(0, 0) == color(3));
  REQUIRE(pixel(1, 1) == color(3));
  REQUIRE(pixel(14, 0) == color(2));
  REQUIRE(pixel(0, 2) == color(1));
  REQUIRE(pixel(0, 4) == color(2));
}

TEST_CASE_METHOD(Card, "mode_6_interleaves_two_banks_of_one_bit_pixels", "[vga]") {
  set_mode(kMode06);
  poke(kTextWindow, 0x80);
  poke(kTextWindow + 0x2000 + 79, 0x01);
  poke(kTextWindow + 80, 0x40);
  REQUIRE(pixel(0, 1) == color(1));
  REQUIRE(pixel(639, 2) == color(1));
  REQUIRE(pixel(1, 4) == color(1));
  REQUIRE(vga.surface().height() == 400);
}

TEST_CASE_METHOD(Card, "mode_13h_splits_at_line_compare", "[vga]") {
  set_mode(kMode13);
  poke(0, 5);
  poke(320 * 100, 6);
  const unsigned start = 320 * 100 / 4;
  cr(0x0C, start >> 8);
  cr(0x0D, start & 0xFF);
  cr(0x07, 0x0F);
  cr(0x11, 0x00);
  cr(0x07, 0x0F);
  cr(0x09, 0x01);
  cr(0x18, 199);
  REQUIRE(pixel(0, 0) == color(6));
  REQUIRE(pixel(0, 199) == color(0));
  REQUIRE(pixel(0, 200) == color(5));
}

TEST_CASE_METHOD(Card, "palette_change_redraws", "[vga]") {
  set_mode(kMode13);
  poke(0, 9);
  REQUIRE(pixel(0, 0) == color(9));
  dac(9, 0, 0, 63);
  REQUIRE(pixel(0, 0) == 0x0000FF);
}

TEST_CASE_METHOD(Card, "attribute_colour_select_chooses_a_bank_of_the_dac", "[vga]") {
  set_mode(kMode12);
  poke(0, 0x80);
  ar(0x14, 0x04);  // bits 7 and 6 of the index: 01
  dac(0x4F, 1, 2, 3);
  REQUIRE(pixel(0, 0) == 0x07080F);
  dac(0x1F, 0, 63, 0);
  ar(0x14, 0x01);
  ar(0x10, 0x81);  // bits 5 and 4, too
  REQUIRE(pixel(0, 0) == 0x00FF00);
}

TEST_CASE_METHOD(Vbe, "vbe_8_bit_pixels_go_through_the_dac", "[vga]") {
  show(8, {0, 200});
  dac(200, 0x12, 0x34, 0x3F);
  dispi(VbeDispi::kEnable, 0x61);  // 8-bit DAC
  REQUIRE(pixel(1, 0) == 0x12343F);
}

TEST_CASE_METHOD(Vbe, "vbe_15_and_16_bit_pixels_are_widened", "[vga]") {
  show(15, {0x00, 0x7C, 0xE0, 0x03, 0x1F, 0x00, 0x01, 0x80});
  REQUIRE(pixel(0, 0) == 0xFF0000);
  REQUIRE(pixel(1, 0) == 0x00FF00);
  REQUIRE(pixel(2, 0) == 0x0000FF);
  REQUIRE(pixel(3, 0) == 0x000008);
  show(16, {0x00, 0xF8, 0xE0, 0x07, 0x1F, 0x00});
  REQUIRE(pixel(0, 0) == 0xFF0000);
  REQUIRE(pixel(1, 0) == 0x00FF00);
  REQUIRE(pixel(2, 0) == 0x0000FF);
}

TEST_CASE_METHOD(Vbe, "vbe_24_bit_pixels_are_three_bytes", "[vga]") {
  show(24, {1, 2, 3, 4, 5, 6});
  REQUIRE(pixel(1, 0) == 0x060504);
}

TEST_CASE_METHOD(Vbe, "vbe_32_bit_pixels_follow_the_byte_order_register", "[vga]") {
  set_vbe(320, 200, 32);
  const std::array<std::uint8_t, 4> bytes = {0x11, 0x22, 0x33, 0xFF};
  std::copy(bytes.begin(), bytes.end(), memory.begin());
  map_framebuffer();
  REQUIRE(pixel(0, 0) == 0x332211);
  vga.bars()[2].handler->write(0x604, 4, 0xBEBEBEBE);
  REQUIRE(pixel(0, 0) == 0x2233FF);
}

TEST_CASE_METHOD(Vbe, "vbe_4_bit_pixels_are_planar", "[vga]") {
  set_vbe(800, 600, 4);
  for (unsigned i = 0; i < 16; ++i) {
    ar(i, i);
    dac(i, i, i, i);
  }
  ar(0x12, 0x0F);
  gr(8, 0xFF);
  sr(2, 0x0A);
  poke(100, 0x80);  // second line
  REQUIRE(pixel(0, 1) == 0x282828);
  REQUIRE(vga.surface().width() == 800);
}

TEST_CASE_METHOD(Vbe, "vbe_draws_only_lines_of_written_pages", "[vga]") {
  show(8, {});
  dac(1, 63, 63, 63);
  vga.update();
  const auto generation = vga.surface().generation();
  vga.update();
  REQUIRE(vga.surface().generation() == generation);
  memory[640 * 100] = 1;                      // not reported: not seen
  mapper.write(kVramSlot, 640 * 300 + 8, 1);  // reported
  vga.update();
  REQUIRE(vga.surface().row(100)[0] == 0);
  REQUIRE(vga.surface().row(300)[8] == 0xFFFFFF);
  REQUIRE(vga.surface().changes_since(generation) == std::vector<Rect>{{0, 288, 64, 16}});
}

TEST_CASE_METHOD(Vbe, "vbe_pans_over_the_virtual_screen", "[vga]") {
  show(8, {});
  dac(1, 63, 63, 63);
  dispi(VbeDispi::kVirtWidth, 1024);
  dispi(VbeDispi::kXOffset, 100);
  dispi(VbeDispi::kYOffset, 50);
  mapper.write(kVramSlot, 1024 * 51 + 102, 1);
  REQUIRE(pixel(2, 1) == 0xFFFFFF);
}

TEST_CASE_METHOD(Vbe, "vbe_clears_memory_unless_told_not_to", "[vga]") {
  memory[5] = 7;
  set_vbe(640, 480, 8, VbeDispi::kLfbEnabled | VbeDispi::kNoClearMem);
  REQUIRE(memory[5] == 7);
  set_vbe(640, 480, 8);
  REQUIRE(memory[5] == 0);
}
