#include "devices/video/vga_registers.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace whistler;

namespace {

struct Fixture {
  ManualClock clock;
  VgaRegisters vga{clock};
  Fixture() { vga.write(0x3C2, 0x67); }  // colour, 28 MHz
  void indexed(std::uint16_t port, unsigned index, unsigned value) {
    vga.write(port, static_cast<std::uint8_t>(index));
    vga.write(static_cast<std::uint16_t>(port + 1), static_cast<std::uint8_t>(value));
  }
  unsigned read_indexed(std::uint16_t port, unsigned index) {
    vga.write(port, static_cast<std::uint8_t>(index));
    return vga.read(static_cast<std::uint16_t>(port + 1));
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "vga_registers_keep_only_bits_that_exist", "[vga]") {
  indexed(0x3C4, 2, 0xFF);
  indexed(0x3C4, 4, 0xFF);
  indexed(0x3CE, 5, 0xFF);
  indexed(0x3CE, 6, 0xFF);
  REQUIRE(read_indexed(0x3C4, 2) == 0x0F);
  REQUIRE(read_indexed(0x3C4, 4) == 0x0E);
  REQUIRE(read_indexed(0x3CE, 5) == 0x7B);
  REQUIRE(read_indexed(0x3CE, 6) == 0x0F);
}

TEST_CASE_METHOD(Fixture, "vga_misc_bit_0_chooses_which_ports_answer", "[vga]") {
  indexed(0x3D4, 0x0C, 0x12);
  REQUIRE(vga.read(0x3D5) == 0x12);
  REQUIRE(vga.read(0x3B5) == 0xFF);
  vga.write(0x3C2, 0x66);
  REQUIRE(vga.read(0x3D5) == 0xFF);
  REQUIRE(vga.read(0x3B5) == 0x12);
}

TEST_CASE_METHOD(Fixture, "vga_attribute_flip_flop_alternates_and_is_reset_by_status_read", "[vga]") {
  vga.write(0x3C0, 0x02);
  REQUIRE(vga.read(0x3C0) == 0x00);  // data comes next
  vga.write(0x3C0, 0x15);
  REQUIRE(vga.read(0x3C0) == 0x02);
  REQUIRE(vga.read(0x3C1) == 0x15);
  vga.write(0x3C0, 0x03);
  static_cast<void>(vga.read(0x3DA));
  vga.write(0x3C0, 0x32);  // an index again
  static_cast<void>(vga.read(0x3DA));
  REQUIRE(vga.read(0x3C0) == 0x32);
}

TEST_CASE_METHOD(Fixture, "vga_crtc_protection_spares_the_line_compare_bit", "[vga]") {
  indexed(0x3D4, 0x00, 0x5F);
  indexed(0x3D4, 0x07, 0x1F);
  indexed(0x3D4, 0x11, 0x8E);
  indexed(0x3D4, 0x00, 0x00);
  indexed(0x3D4, 0x07, 0x00);
  indexed(0x3D4, 0x12, 0x8F);
  REQUIRE(read_indexed(0x3D4, 0x00) == 0x5F);
  REQUIRE(read_indexed(0x3D4, 0x07) == 0x0F);
  REQUIRE(read_indexed(0x3D4, 0x12) == 0x8F);
}

TEST_CASE_METHOD(Fixture, "vga_dac_entry_changes_with_its_third_component", "[vga]") {
  vga.write(0x3C8, 7);
  vga.write(0x3C9, 0x3F);
  vga.write(0x3C9, 0x00);
  REQUIRE(vga.color(7, false) == 0);
  vga.write(0x3C9, 0x15);
  REQUIRE(vga.color(7, false) == 0xFF0057);
  REQUIRE(vga.read(0x3C8) == 8);
  REQUIRE(vga.read(0x3C7) == 0);
}

TEST_CASE_METHOD(Fixture, "vga_dac_reads_back_in_six_and_eight_bits", "[vga]") {
  vga.write(0x3C8, 1);
  for (const unsigned component : {0xC1U, 0x02U, 0x03U}) {
    vga.write(0x3C9, static_cast<std::uint8_t>(component));
  }
  vga.write(0x3C7, 1);
  REQUIRE(vga.read(0x3C7) == 3);
  REQUIRE(vga.read(0x3C9) == 0x01);
  vga.set_eight_bit_dac(true);
  vga.write(0x3C7, 1);
  REQUIRE(vga.read(0x3C9) == 0xC1);
  REQUIRE(vga.color(1, true) == 0xC10203);
}

TEST_CASE_METHOD(Fixture, "vga_pel_mask_limits_the_colours", "[vga]") {
  vga.write(0x3C8, 3);
  for (int i = 0; i < 3; ++i) {
    vga.write(0x3C9, 0x3F);
  }
  vga.write(0x3C6, 0x0F);
  REQUIRE(vga.read(0x3C6) == 0x0F);
  REQUIRE(vga.color(0xF3, false) == 0xFFFFFF);
}

TEST_CASE_METHOD(Fixture, "vga_status_follows_the_beam", "[vga]") {
  // 720x400 at 70 Hz: 100 characters of 9 dots, 449 lines, 400 shown, retrace in lines 412 and 413.
  const std::array<std::uint8_t, 25> mode3 = {0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00,
                                              0x4F, 0x0D, 0x0E, 0x00, 0x00, 0x00, 0x00, 0x9C, 0x0E,
                                              0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF};
  for (unsigned i = 0; i < mode3.size(); ++i) {
    indexed(0x3D4, i, mode3[i]);
  }
  const auto line = [](unsigned n) { return time_of_tick(n * 100, 28'322'000 / 9) + 1; };
  clock.set(line(0));
  REQUIRE((vga.read(0x3DA) & 9) == 0);
  clock.set(line(1) - 100);  // the end of the first line: horizontal blanking
  REQUIRE((vga.read(0x3DA) & 9) == 1);
  clock.set(line(405));
  REQUIRE((vga.read(0x3DA) & 9) == 1);
  clock.set(line(412));
  REQUIRE((vga.read(0x3DA) & 9) == 9);
  clock.set(line(449));
  REQUIRE((vga.read(0x3DA) & 9) == 0);
}

TEST_CASE_METHOD(Fixture, "vga_status_retraces_even_if_nothing_is_programmed", "[vga]") {
  unsigned seen = 0;
  for (int i = 0; i < 2000; ++i) {
    clock.advance(10'000);
    seen |= 1U << (vga.read(0x3DA) >> 3 & 1);
  }
  REQUIRE(seen == 3);
}

TEST_CASE_METHOD(Fixture, "vga_load_refuses_a_component_out_of_range", "[vga]") {
  auto state = vga.state();
  state.dac_component = 3;
  REQUIRE_FALSE(vga.load(state).has_value());
  REQUIRE(vga.state().dac_component == 0);
}

TEST_CASE_METHOD(Fixture, "vga_registers_survive_any_access", "[vga]") {
  std::mt19937 random(1);
  for (int i = 0; i < 20'000; ++i) {
    const auto port = static_cast<std::uint16_t>(0x3B0 + random() % 48);
    vga.write(port, static_cast<std::uint8_t>(random()));
    static_cast<void>(vga.read(static_cast<std::uint16_t>(0x3B0 + random() % 48)));
    clock.advance(random() % 100'000);
  }
  REQUIRE(vga.state().dac_component < 3);
}
