#include "devices/video/vbe_dispi.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace whistler;

namespace {

struct Fixture {
  VbeDispi vbe{16U << 20};
  bool set_mode(unsigned width, unsigned height, unsigned bpp, unsigned enable = 0x41) {
    vbe.write(VbeDispi::kXres, static_cast<std::uint16_t>(width));
    vbe.write(VbeDispi::kYres, static_cast<std::uint16_t>(height));
    vbe.write(VbeDispi::kBpp, static_cast<std::uint16_t>(bpp));
    return vbe.write(VbeDispi::kEnable, static_cast<std::uint16_t>(enable));
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "vbe_identifies_as_version_5_and_takes_older_ids", "[vbe]") {
  REQUIRE(vbe.read(VbeDispi::kId) == 0xB0C5);
  vbe.write(VbeDispi::kId, 0xB0C4);
  REQUIRE(vbe.read(VbeDispi::kId) == 0xB0C4);
  vbe.write(VbeDispi::kId, 0xB0C6);
  REQUIRE(vbe.read(VbeDispi::kId) == 0xB0C4);
}

TEST_CASE_METHOD(Fixture, "vbe_tells_its_memory_and_limits", "[vbe]") {
  REQUIRE(vbe.read(VbeDispi::kVideoMemory64K) == 256);
  vbe.write(VbeDispi::kEnable, VbeDispi::kGetCaps);
  REQUIRE(vbe.read(VbeDispi::kXres) == 16000);
  REQUIRE(vbe.read(VbeDispi::kYres) == 12000);
  REQUIRE(vbe.read(VbeDispi::kBpp) == 32);
  REQUIRE(vbe.read(0x0B) == 0);
}

TEST_CASE_METHOD(Fixture, "vbe_enable_reports_the_change_and_sets_the_virtual_screen", "[vbe]") {
  REQUIRE(set_mode(1024, 768, 16));
  REQUIRE(vbe.pitch() == 2048);
  REQUIRE(vbe.read(VbeDispi::kVirtWidth) == 1024);
  REQUIRE(vbe.read(VbeDispi::kVirtHeight) == 8192);
  REQUIRE_FALSE(vbe.write(VbeDispi::kEnable, 0x41));  // on already
}

TEST_CASE_METHOD(Fixture, "vbe_pans_within_the_virtual_screen", "[vbe]") {
  set_mode(640, 480, 32);
  vbe.write(VbeDispi::kVirtWidth, 1024);
  vbe.write(VbeDispi::kXOffset, 10);
  vbe.write(VbeDispi::kYOffset, 3);
  REQUIRE(vbe.pitch() == 4096);
  REQUIRE(vbe.start() == 3 * 4096 + 40);
}

TEST_CASE_METHOD(Fixture, "vbe_makes_impossible_modes_fit_the_memory", "[vbe]") {
  set_mode(16000, 12000, 32);
  REQUIRE(vbe.height() == (16U << 20) / 64000);
  vbe.write(VbeDispi::kYOffset, 5);
  REQUIRE(vbe.start() == 0);
  vbe.write(VbeDispi::kBpp, 7);
  REQUIRE(vbe.bpp() == 8);
  vbe.write(VbeDispi::kXres, 0);
  REQUIRE(vbe.width() == 8);
}

TEST_CASE_METHOD(Fixture, "vbe_bank_stays_within_the_memory", "[vbe]") {
  set_mode(640, 480, 8);
  vbe.write(VbeDispi::kBank, 0x103);
  REQUIRE(vbe.bank_offset() == 0x30000);
  vbe.write(VbeDispi::kEnable, 0x40);
  REQUIRE(vbe.bank_offset() == 0);
  set_mode(800, 600, 4);
  vbe.write(VbeDispi::kBank, 0x41);
  REQUIRE(vbe.bank_offset() == 0x10000);
}

TEST_CASE_METHOD(Fixture, "vbe_picture_lies_within_the_memory_whatever_is_written", "[vbe]") {
  std::mt19937 random(2);
  VbeDispi small(1U << 20);
  unsigned enabled = 0;
  for (int i = 0; i < 50'000; ++i) {
    small.write(static_cast<std::uint16_t>(random() % 12),
                static_cast<std::uint16_t>(random() >> (random() % 16)));
    if (small.enabled()) {
      ++enabled;
      REQUIRE(small.height() > 0);
      REQUIRE(small.start() + std::uint64_t{small.height()} * small.pitch() <= (1U << 20));
      REQUIRE(small.bank_offset() * (small.planar() ? 4ULL : 1ULL) < (1U << 20));
    }
  }
  REQUIRE(enabled > 1000);
}

TEST_CASE_METHOD(Fixture, "vbe_load_makes_hostile_values_fit", "[vbe]") {
  VbeDispi::State state;
  state.regs.fill(0xFFFF);
  vbe.load(state);
  REQUIRE(vbe.start() + std::uint64_t{vbe.height()} * vbe.pitch() <= (16U << 20));
  REQUIRE(vbe.bank_offset() < (16U << 20));
  REQUIRE(vbe.read(VbeDispi::kId) == 0xB0C5);
}
