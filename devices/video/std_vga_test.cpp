#include "devices/video/std_vga.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <set>
#include <utility>

#include "devices/video/vga_test_kit.hpp"

using namespace whistler;
using namespace whistler::vga_test;

namespace {

StateBytes saved(const StdVga& vga) {
  StateWriter writer;
  vga.save(writer);
  return writer.bytes();
}

struct Registers : Card {
  std::uint64_t mmio(std::uint64_t offset, unsigned width) {
    return vga.bars()[2].handler->read(offset, width);
  }
  void mmio(std::uint64_t offset, unsigned width, std::uint64_t value) {
    vga.bars()[2].handler->write(offset, width, value);
  }
};

/// Any access a guest can make, mode switches included.
void disturb(Card& card, std::mt19937& random) {
  const auto value = static_cast<std::uint32_t>(random());
  switch (random() % 12) {
    case 0: card.vga.bars()[2].handler->write(random() % 0xFFF, 1U << (random() % 3), value); break;
    case 1:
      static_cast<void>(card.vga.bars()[2].handler->read(random() % 0xFFF, 1U << (random() % 3)));
      break;
    case 2:
    case 3: card.vga.window().write(random() % 0x20000, 4, value); break;
    case 4: static_cast<void>(card.vga.window().read(random() % 0x20000, 4)); break;
    case 5: card.dispi(value % 11, value >> 8 >> (random() % 12) & 0xFFFF); break;
    case 6: card.ar(value % 24, value >> 8 & 0xFF); break;
    case 7: card.cr(value % 26, value >> 8 & 0xFF); break;
    case 8: card.gr(value % 9, value >> 8 & 0xFF); break;
    case 9: card.sr(value % 5, value >> 8 & 0xDF); break;
    case 10: card.out(static_cast<std::uint16_t>(0x3B0 + value % 48), value >> 8 & 0xFF); break;
    default:
      card.clock.advance(value % 50'000'000);
      if (value % 8 == 0) {
        card.out(0x3C2, 0x67);
        card.dispi(VbeDispi::kEnable, value >> 8 & 0xFF);
      }
      break;
  }
}

}  // namespace

TEST_CASE("std_vga_memory_size_is_checked", "[vga]") {
  REQUIRE(StdVga::check_vram_size(16U << 20).has_value());
  REQUIRE(StdVga::check_vram_size(256U << 20).has_value());
  REQUIRE_FALSE(StdVga::check_vram_size(512U << 20).has_value());
  REQUIRE_FALSE(StdVga::check_vram_size(3U << 20).has_value());
  REQUIRE_FALSE(StdVga::check_vram_size(0).has_value());
}

TEST_CASE_METHOD(Card, "std_vga_has_qemus_pci_identity", "[vga]") {
  REQUIRE(vga.config_read(kPciVendorId, 4) == 0x11111234);
  REQUIRE(vga.config_read(kPciRevision, 4) == 0x03000002);
  REQUIRE(vga.config_read(kPciSubsystemVendor, 4) == 0x11001AF4);
  REQUIRE(vga.config_read(kPciInterruptPin, 1) == 0);
  for (const unsigned bar : {kPciBar0, kPciBar0 + 8, kPciRomBar}) {
    vga.config_write(bar, 4, 0xFFFFFFFE);
  }
  REQUIRE(vga.config_read(kPciBar0, 4) == 0xFFF00008);
  REQUIRE(vga.config_read(kPciBar0 + 8, 4) == 0xFFFFF000);
  REQUIRE(vga.config_read(kPciRomBar, 4) == 0xFFFF8000);
}

TEST_CASE_METHOD(Registers, "std_vga_mirrors_vga_ports_in_bar2", "[vga]") {
  mmio(0x402, 1, 0x63);    // 3C2
  mmio(0x404, 2, 0x0302);  // 3C4 and 3C5: an index and its data
  REQUIRE(in(0x3CC) == 0x63);
  REQUIRE(in(0x3C5) == 0x03);
  REQUIRE(mmio(0x404, 2) == 0x0302);
}

TEST_CASE_METHOD(Registers, "std_vga_mirrors_dispi_in_bar2", "[vga]") {
  REQUIRE(mmio(0x500, 2) == 0xB0C5);
  REQUIRE(mmio(0x514, 2) == 16);
  mmio(0x502, 2, 1024);
  mmio(0x504, 2, 768);
  mmio(0x506, 2, 8);
  mmio(0x508, 2, 0x41);
  REQUIRE(dispi(VbeDispi::kXres) == 1024);
  REQUIRE(dispi(VbeDispi::kVirtWidth) == 1024);
  mmio(0x402, 1, 0x01);
  static_cast<void>(mmio(0x41A, 1));
  mmio(0x400, 1, 0x20);  // as Linux' bochs-drm unblanks
  vga.update();
  REQUIRE(vga.surface().width() == 1024);
  REQUIRE(vga.surface().height() == 768);
}

TEST_CASE_METHOD(Registers, "std_vga_has_extended_registers_and_edid", "[vga]") {
  REQUIRE(mmio(0x600, 4) == 8);
  REQUIRE(mmio(0x604, 4) == 0x1E1E1E1E);
  mmio(0x604, 4, 0xBEBEBEBE);
  mmio(0x604, 4, 0x12345678);
  REQUIRE(mmio(0x604, 4) == 0xBEBEBEBE);
  REQUIRE(mmio(0x000, 4) == 0xFFFFFF00);
  REQUIRE(mmio(0x080, 4) == 0);
  REQUIRE(mmio(0x700, 4) == 0xFFFFFFFF);
}

TEST_CASE_METHOD(Card, "std_vga_dispi_data_is_at_1CF_and_1D0", "[vga]") {
  vga.dispi().write(0, 2, VbeDispi::kXres);
  vga.dispi().write(2, 2, 800);
  REQUIRE(vga.dispi().read(0, 2) == VbeDispi::kXres);
  REQUIRE(vga.dispi().read(1, 2) == 800);
}

TEST_CASE_METHOD(Card, "std_vga_vbe_mode_gives_a_linear_bank_to_the_window", "[vga]") {
  set_mode(kMode12);
  gr(0, 0x0F);  // leftovers of planar drawing
  gr(1, 0x0F);
  set_vbe(640, 480, 8);
  vga.window().write(0x10, 4, 0x04030201);
  REQUIRE(memory[0x12] == 3);
}

TEST_CASE_METHOD(Card, "std_vga_reset_equals_a_fresh_card", "[vga]") {
  Card fresh;
  std::mt19937 random(3);
  for (int i = 0; i < 5000; ++i) {
    disturb(*this, random);
  }
  REQUIRE(saved(vga) != saved(fresh.vga));
  vga.reset();
  REQUIRE(saved(vga) == saved(fresh.vga));
  REQUIRE(mapper.slots.count(kWindowSlot) == 0);
}

TEST_CASE_METHOD(Card, "std_vga_saved_state_comes_back_with_its_picture", "[vga]") {
  set_mode(kMode12);
  poke(0, 0xF0);
  vga.update();
  const auto before = saved(vga);
  const auto bytes = memory;
  const auto seen = pixel(0, 0);
  std::mt19937 random(4);
  for (int i = 0; i < 2000; ++i) {
    disturb(*this, random);
  }
  vga.update();
  std::copy(bytes.begin(), bytes.end(), memory.begin());
  REQUIRE(vga.load(StateReader(before)).has_value());
  REQUIRE(saved(vga) == before);
  REQUIRE(pixel(0, 0) == seen);
  REQUIRE(vga.surface().width() == 640);
}

TEST_CASE_METHOD(Card, "std_vga_load_of_damaged_state_changes_nothing", "[vga]") {
  set_mode(kMode13);
  const auto before = saved(vga);
  auto damaged = before;
  damaged.resize(damaged.size() / 2);
  REQUIRE_FALSE(vga.load(StateReader(damaged)).has_value());
  REQUIRE(saved(vga) == before);
}

TEST_CASE_METHOD(Card, "std_vga_survives_random_states", "[vga]") {
  std::mt19937 random(5);
  const auto sound = saved(vga);
  unsigned loaded = 0;
  for (int i = 0; i < 500; ++i) {
    auto bytes = sound;
    for (int change = 0; change < 8; ++change) {
      bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
    }
    loaded += vga.load(StateReader(bytes)).has_value() ? 1 : 0;
    vga.update();
    static_cast<void>(vga.text());
  }
  REQUIRE(loaded > 0);
}

TEST_CASE_METHOD(Card, "std_vga_survives_any_access", "[vga]") {
  std::mt19937 random(6);
  map_framebuffer();
  std::set<std::pair<unsigned, unsigned>> sizes;
  unsigned texts = 0;
  for (int i = 0; i < 60'000; ++i) {
    disturb(*this, random);
    if (random() % 64 == 0) {
      vga.update();
      texts += vga.text().has_value() ? 1 : 0;
      sizes.emplace(vga.surface().width(), vga.surface().height());
      REQUIRE(std::uint64_t{vga.surface().width()} * vga.surface().height() <= kMaxPicturePixels);
    }
  }
  // It got into many modes.
  REQUIRE(sizes.size() > 50);
  REQUIRE(texts > 20);
}
