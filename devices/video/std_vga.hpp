// The PCI display adapter that QEMU calls `-vga std` (1234:1111).
// Models: a VGA (vga_registers.hpp, planar_memory.hpp, vga_frame.hpp), the Bochs VBE extension
// (vbe_dispi.hpp) with a linear framebuffer in BAR0, the register window in BAR2 (EDID at 0x000, VGA ports
// 0x3C0..0x3DF at 0x400, dispi registers at 0x500, QEMU's extended registers with the framebuffer's byte
// order at 0x600), and the VGA BIOS in the ROM BAR. Missing: the VGA's interrupt, light pen, and what the
// parts list as missing in their own headers. Documentation: IBM Video Subsystem Technical Reference (VGA);
// FreeVGA; Bochs VBE DISPI interface, version B0C5; QEMU, docs/specs/standard-vga.rst.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/clock.hpp"
#include "devices/core/device.hpp"
#include "devices/core/display.hpp"
#include "devices/core/memory_mapper.hpp"
#include "devices/pci/pci_function.hpp"
#include "devices/video/planar_memory.hpp"
#include "devices/video/vbe_dispi.hpp"
#include "devices/video/vga_registers.hpp"
#include "devices/video/vga_renderer.hpp"

namespace whistler {

/// Under the machine lock. The board maps three handlers:
///   ports()   0x3B0, 48 bytes, width 1: the VGA's registers;
///   dispi()   0x1CE, 3 bytes, width 2: the VBE index (offset 0) and data (offsets 1 and 2) registers;
///   window()  0xA0000, 128 KiB of memory, width 4 or 8: the legacy memory window.
/// Writes to the window may arrive late (coalesced MMIO) as long as they stay in order and come before any
/// other access to the card and before update().
///
/// Size of surface(): text modes columns * 8 or 9 by the scan lines of the CRTC (80x25 is 720x400); VGA
/// graphics are shown as the monitor would, low resolutions doubled (mode 13h and 0Dh are 640x400); VBE modes
/// at their own size.
class StdVga final : public Device, public PciFunction, public DisplaySource {
 public:
  struct Setup {
    std::span<std::uint8_t>
        vram;  ///< page-aligned; size as check_vram_size() says. Its content is not part of the saved state
    unsigned vram_slot = 0;  ///< MemoryMapper slot of BAR0
    std::span<std::uint8_t> rom =
        {};  ///< VGA BIOS, padded to a power of two of at least 4096 bytes; empty: no ROM BAR
    unsigned rom_slot = 0;
    unsigned window_slot =
        0;  ///< MemoryMapper slot for 0xA0000, used while the window is plain linear memory
    unsigned edid_width = 1280;  ///< the monitor's preferred mode, 8..4088 pixels
    unsigned edid_height = 800;
  };
  static constexpr std::uint64_t kWindowAddress = 0xA0000;

  /// kInvalid, unless `bytes` is a power of two from 1 MiB to 256 MiB. Call it before constructing.
  [[nodiscard]] static Result<void> check_vram_size(std::uint64_t bytes);

  /// `clock`, `mapper` and the memory in `setup` must outlive the card. The memory is cleared by the machine,
  /// not here.
  StdVga(const Clock& clock, MemoryMapper& mapper, const Setup& setup);

  [[nodiscard]] IoHandler& ports() { return ports_; }
  [[nodiscard]] IoHandler& dispi() { return dispi_ports_; }
  [[nodiscard]] IoHandler& window() { return window_; }

  [[nodiscard]] std::string_view id() const override { return "vga"; }
  /// Registers only: like a real card's, the video memory keeps its bytes.
  void reset() override;
  void save(StateWriter& writer) const override;
  /// Everything is drawn anew afterwards. The machine restores the bytes of vram() before or after this.
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

  /// The video memory, for the machine to save and load beside the registers.
  [[nodiscard]] std::span<std::uint8_t> vram() const { return vram_; }

  void update() override;
  [[nodiscard]] const Surface& surface() const override { return renderer_.surface(); }
  [[nodiscard]] std::optional<TextScreen> text() const override;

 private:
  struct State {
    Config pci;
    VgaRegisters::State vga;
    VbeDispi::State vbe;
    std::uint32_t latch = 0;
    bool big_endian = false;
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("pci", self.pci);
      visit("vga", self.vga);
      visit("vbe", self.vbe);
      visit("latch", self.latch);
      visit("big_endian", self.big_endian);
    }
  };

  /// One range of registers: forwards to a member function pair of the card.
  class Range final : public IoHandler {
   public:
    using Read = std::uint64_t (StdVga::*)(std::uint64_t offset, unsigned width);
    using Write = void (StdVga::*)(std::uint64_t offset, unsigned width, std::uint64_t value);
    Range(StdVga& card, Read read, Write write) : card_(card), read_(read), write_(write) {}
    std::uint64_t read(std::uint64_t offset, unsigned width) override {
      return (card_.*read_)(offset, width);
    }
    void write(std::uint64_t offset, unsigned width, std::uint64_t value) override {
      (card_.*write_)(offset, width, value);
    }

   private:
    StdVga& card_;
    Read read_;
    Write write_;
  };

  std::uint64_t port_read(std::uint64_t offset, unsigned width);
  void port_write(std::uint64_t offset, unsigned width, std::uint64_t value);
  std::uint64_t dispi_port_read(std::uint64_t offset, unsigned width);
  void dispi_port_write(std::uint64_t offset, unsigned width, std::uint64_t value);
  std::uint64_t window_read(std::uint64_t offset, unsigned width);
  void window_write(std::uint64_t offset, unsigned width, std::uint64_t value);
  std::uint64_t mmio_read(std::uint64_t offset, unsigned width);
  void mmio_write(std::uint64_t offset, unsigned width, std::uint64_t value);

  [[nodiscard]] std::uint8_t mmio_read_byte(std::uint64_t offset);
  void write_dispi(std::uint16_t index, std::uint16_t value);
  void settle();
  void map_window();
  void place_window();
  void collect_window();
  [[nodiscard]] VgaFrame frame() const;

  const Clock& clock_;
  std::span<std::uint8_t> vram_;
  MemoryMapper& mapper_;
  unsigned vram_slot_;
  unsigned window_slot_;
  VgaRegisters vga_;
  VbeDispi vbe_;
  DirtyPages dirty_;
  PlanarMemory planes_;
  VgaRenderer renderer_;
  std::array<std::uint8_t, 128> edid_;
  bool big_endian_ = false;
  std::optional<LinearWindow> mapped_window_;  ///< what window_slot_ shows now
  Range ports_;
  Range dispi_ports_;
  Range window_;
  Range mmio_;
};

}  // namespace whistler
