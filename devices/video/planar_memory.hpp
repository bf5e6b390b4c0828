// The VGA's memory as the processor sees it through the window at 0xA0000.
// Models: the four window positions, planar access with write modes 0 to 3, read modes 0 and 1, latches,
// set/reset, rotation, logic and bit mask; odd/even addressing; chain-4; 64 KiB banks. Missing: chain-4 goes
// straight to memory, past the logic unit and the latches (as in QEMU). Documentation: IBM Video Subsystem
// Technical Reference (VGA), graphics controller; FreeVGA, "Accessing the VGA display memory".
//
// Layout: byte 4 * n + p of the video memory is byte n of plane p. Addresses are compacted as in QEMU: pairs
// (odd/even) and quadruples (chain-4) of processor bytes take one n, so that the framebuffer in BAR0 is
// linear in every 256-colour mode.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "devices/video/dirty_pages.hpp"
#include "devices/video/vga_registers.hpp"

namespace whistler {

/// A stretch of video memory that the window shows byte for byte, so that it can be mapped into the guest.
struct LinearWindow {
  std::uint64_t position = 0;  ///< of its first byte, from 0xA0000
  std::uint64_t offset = 0;    ///< in the video memory
  std::uint64_t size = 0;
  bool operator==(const LinearWindow&) const = default;
};

/// Under the machine lock.
class PlanarMemory {
 public:
  static constexpr std::uint32_t kWindowSize = 0x20000;
  static constexpr std::uint32_t kVgaSize = 0x40000;  ///< the 256 KiB a VGA has; planar addresses wrap there

  /// `vram`, a power of two of bytes and at least kVgaSize, `registers` and `dirty` must outlive this. Writes
  /// mark `dirty`.
  PlanarMemory(std::span<std::uint8_t> vram, const VgaRegisters& registers, DirtyPages& dirty)
      : vram_(vram), registers_(registers), dirty_(dirty) {}

  /// One byte at `position` from 0xA0000, with the window moved by `bank` bytes (of each plane if not
  /// chained). What is outside the selected window reads as 0xFF.
  [[nodiscard]] std::uint8_t read(std::uint32_t position, std::uint32_t bank);
  void write(std::uint32_t position, std::uint32_t bank, std::uint8_t value);

  /// What the window shows, if it is plain memory now.
  [[nodiscard]] std::optional<LinearWindow> linear_window(std::uint32_t bank) const;

  [[nodiscard]] std::uint32_t latch() const { return latch_; }
  void set_latch(std::uint32_t latch) { latch_ = latch; }

 private:
  struct Span {
    std::uint32_t first;
    std::uint32_t size;
  };
  [[nodiscard]] Span decoded() const;
  [[nodiscard]] std::uint32_t byte_of(std::uint32_t n, std::uint32_t bank) const;
  [[nodiscard]] std::uint32_t operate(std::uint8_t value, unsigned mode) const;

  std::span<std::uint8_t> vram_;
  const VgaRegisters& registers_;
  DirtyPages& dirty_;
  std::uint32_t latch_ = 0;  ///< plane p in bits 8p..8p+7
};

}  // namespace whistler
