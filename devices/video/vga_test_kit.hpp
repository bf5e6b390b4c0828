// What the tests of this folder share: a card with its memory, and the BIOS's register tables of the modes
// they use.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "devices/video/std_vga.hpp"

namespace whistler::vga_test {

/// Remembers mappings; pages are written by setting bits of `written`.
struct FakeMapper final : MemoryMapper {
  struct Mapping {
    std::uint64_t address = 0;
    std::span<std::uint8_t> memory;
    std::vector<std::uint64_t> written;
  };
  std::map<unsigned, Mapping> slots;
  unsigned maps = 0;

  void map(unsigned slot, std::uint64_t address, std::span<std::uint8_t> memory, Access) override {
    ++maps;
    slots[slot] = {address, memory,
                   std::vector<std::uint64_t>((memory.size() / kPageSize + 63) / 64, ~std::uint64_t{0})};
  }
  void unmap(unsigned slot) override { slots.erase(slot); }
  void collect_dirty(unsigned slot, std::span<std::uint64_t> bitmap) override {
    const auto found = slots.find(slot);
    if (found == slots.end()) {
      return;
    }
    auto& written = found->second.written;
    const std::size_t pages = found->second.memory.size() / kPageSize;
    for (std::size_t page = 0; page < pages; ++page) {
      bitmap[page / 64] |= written[page / 64] & (std::uint64_t{1} << (page % 64));
    }
    std::fill(written.begin(), written.end(), 0);
  }
  /// A vCPU writes through the mapping.
  void write(unsigned slot, std::uint64_t offset, std::uint8_t value) {
    auto& mapping = slots.at(slot);
    mapping.memory[offset] = value;
    mapping.written[offset / kPageSize / 64] |= std::uint64_t{1} << (offset / kPageSize % 64);
  }
};

/// Registers of a mode as the IBM manual tabulates them.
struct Mode {
  std::uint8_t misc;
  std::array<std::uint8_t, 5> sr;
  std::array<std::uint8_t, 25> cr;
  std::array<std::uint8_t, 9> gr;
  std::array<std::uint8_t, 21> ar;
};

/// 80x25 text, 720x400.
inline constexpr Mode kMode03 = {
    0x67,
    {0x03, 0x00, 0x03, 0x00, 0x02},
    {0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0x00,
     0x00, 0x00, 0x00, 0x9C, 0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF},
    {0,    1,    2,    3,    4,    5,    0x14, 7,    0x38, 0x39, 0x3A,
     0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0x0C, 0x00, 0x0F, 0x08, 0x00}};
/// 320x200, 4 colours.
inline constexpr Mode kMode04 = {
    0x63,
    {0x03, 0x09, 0x03, 0x00, 0x02},
    {0x2D, 0x27, 0x28, 0x90, 0x2B, 0x80, 0xBF, 0x1F, 0x00, 0xC1, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9C, 0x8E, 0x8F, 0x14, 0x00, 0x96, 0xB9, 0xA2, 0xFF},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x30, 0x0F, 0x00, 0xFF},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x01, 0x00, 0x03, 0x00, 0x00}};
/// 640x200, 2 colours.
inline constexpr Mode kMode06 = {
    0x63,
    {0x03, 0x01, 0x01, 0x00, 0x06},
    {0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0xBF, 0x1F, 0x00, 0xC1, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9C, 0x8E, 0x8F, 0x28, 0x00, 0x96, 0xB9, 0xC2, 0xFF},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0D, 0x00, 0xFF},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x01, 0x00, 0x01, 0x00, 0x00}};
/// 320x200, 16 colours.
inline constexpr Mode kMode0D = {
    0x63,
    {0x03, 0x09, 0x0F, 0x00, 0x06},
    {0x2D, 0x27, 0x28, 0x90, 0x2B, 0x80, 0xBF, 0x1F, 0x00, 0xC0, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9C, 0x8E, 0x8F, 0x14, 0x00, 0x96, 0xB9, 0xE3, 0xFF},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0F, 0xFF},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x01, 0x00, 0x0F, 0x00, 0x00}};
/// 640x480, 16 colours.
inline constexpr Mode kMode12 = {
    0xE3,
    {0x03, 0x01, 0x0F, 0x00, 0x06},
    {0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0x0B, 0x3E, 0x00, 0x40, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0xEA, 0x8C, 0xDF, 0x28, 0x00, 0xE7, 0x04, 0xE3, 0xFF},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0F, 0xFF},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x01, 0x00, 0x0F, 0x00, 0x00}};
/// 320x200, 256 colours.
inline constexpr Mode kMode13 = {
    0x63,
    {0x03, 0x01, 0x0F, 0x00, 0x0E},
    {0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0xBF, 0x1F, 0x00, 0x41, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9C, 0x8E, 0x8F, 0x28, 0x40, 0x96, 0xB9, 0xA3, 0xFF},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0F, 0xFF},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x41, 0x00, 0x0F, 0x00, 0x00}};

/// A card with 1 MiB, and short names for what a driver does.
struct Card {
  static constexpr unsigned kVramSlot = 1, kRomSlot = 2, kWindowSlot = 3;
  static constexpr std::uint32_t kTextWindow = 0x18000;  // B8000

  ManualClock clock;
  FakeMapper mapper;
  std::vector<std::uint8_t> memory = std::vector<std::uint8_t>(1U << 20);
  std::vector<std::uint8_t> rom = std::vector<std::uint8_t>(0x8000, 0x55);
  StdVga vga{
      clock,
      mapper,
      {.vram = memory, .vram_slot = kVramSlot, .rom = rom, .rom_slot = kRomSlot, .window_slot = kWindowSlot}};

  void out(std::uint16_t port, unsigned value) { vga.ports().write(port - 0x3B0U, 1, value & 0xFF); }
  unsigned in(std::uint16_t port) { return static_cast<unsigned>(vga.ports().read(port - 0x3B0U, 1)); }
  void out_indexed(std::uint16_t port, unsigned index, unsigned value) {
    out(port, index);
    out(static_cast<std::uint16_t>(port + 1), value);
  }
  void sr(unsigned index, unsigned value) { out_indexed(0x3C4, index, value); }
  void gr(unsigned index, unsigned value) { out_indexed(0x3CE, index, value); }
  void cr(unsigned index, unsigned value) { out_indexed(0x3D4, index, value); }
  /// Leaves the screen on.
  void ar(unsigned index, unsigned value) {
    static_cast<void>(in(0x3DA));
    out(0x3C0, index | 0x20);
    out(0x3C0, value);
  }
  void dac(unsigned index, unsigned red, unsigned green, unsigned blue) {
    out(0x3C8, index);
    for (const auto component : {red, green, blue}) {
      out(0x3C9, component);
    }
  }
  void set_mode(const Mode& mode) {
    out(0x3C2, mode.misc);
    for (unsigned i = 0; i < mode.sr.size(); ++i) {
      sr(i, mode.sr[i]);
    }
    cr(0x11, 0);  // unlock 0..7
    for (unsigned i = 0; i < mode.cr.size(); ++i) {
      cr(i, mode.cr[i]);
    }
    for (unsigned i = 0; i < mode.gr.size(); ++i) {
      gr(i, mode.gr[i]);
    }
    for (unsigned i = 0; i < mode.ar.size(); ++i) {
      ar(i, mode.ar[i]);
    }
    for (unsigned i = 0; i < 256; ++i) {  // entry i is i in red, 63 - i in green, 1 in blue
      dac(i, i & 63, 63 - (i & 63), 1);
    }
  }
  /// What set_mode() makes of DAC entry `index`.
  static std::uint32_t color(unsigned index) {
    const auto wide = [](std::uint32_t six) { return six * 4 + (six & 1) * 3; };
    return wide(index & 63) << 16 | wide(63 - (index & 63)) << 8 | 7;
  }
  void dispi(unsigned index, unsigned value) {
    vga.dispi().write(0, 2, index);
    vga.dispi().write(1, 2, value);
  }
  unsigned dispi(unsigned index) {
    vga.dispi().write(0, 2, index);
    return static_cast<unsigned>(vga.dispi().read(1, 2));
  }
  void set_vbe(unsigned width, unsigned height, unsigned bpp, unsigned flags = VbeDispi::kLfbEnabled) {
    dispi(VbeDispi::kEnable, 0);
    dispi(VbeDispi::kXres, width);
    dispi(VbeDispi::kYres, height);
    dispi(VbeDispi::kBpp, bpp);
    dispi(VbeDispi::kEnable, VbeDispi::kEnabled | flags);
    ar(0, 0);  // the screen on
  }
  void poke(std::uint32_t position, unsigned value) { vga.window().write(position, 1, value & 0xFF); }
  unsigned peek(std::uint32_t position) { return static_cast<unsigned>(vga.window().read(position, 1)); }
  std::uint32_t pixel(unsigned x, unsigned y) {
    vga.update();
    return vga.surface().row(y)[x];
  }
  /// Maps the framebuffer as a BIOS would and lets the first picture pass.
  void map_framebuffer() {
    mapper.map(kVramSlot, 0xFD000000, memory, MemoryMapper::Access::kLogged);
    vga.update();
  }
};

}  // namespace whistler::vga_test
