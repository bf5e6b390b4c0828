// Draws what the video memory holds into a Surface, as little of it as possible.
// Models: every picture VgaFrame describes; cursor and character blinking at the rates of a 60 Hz VGA (16 and
// 32 pictures). Missing: nothing that VgaFrame describes. Documentation: as for vga_frame.hpp.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "devices/core/display.hpp"
#include "devices/video/dirty_pages.hpp"
#include "devices/video/vga_frame.hpp"

namespace whistler {

/// Colours as 0x00RRGGBB: after the attribute controller (16) and straight from the DAC (256).
struct VgaPalette {
  std::array<std::uint32_t, 16> sixteen{};
  std::array<std::uint32_t, 256> all{};
  bool operator==(const VgaPalette&) const = default;
};

[[nodiscard]] VgaPalette decode_palette(const VgaRegisters& registers, bool eight_bit_dac);

/// Under the machine lock.
class VgaRenderer {
 public:
  VgaRenderer();

  /// Draws the lines whose memory is marked in `dirty`, or all if `frame` or `palette` are not those of the
  /// last call. `vram` holds at least frame.wrap bytes.
  void draw(const VgaFrame& frame, const VgaPalette& palette, std::span<const std::uint8_t> vram,
            const DirtyPages& dirty, Nanoseconds now);
  /// Forgets what was drawn: the next draw() looks at everything.
  void invalidate() { valid_ = false; }

  [[nodiscard]] const Surface& surface() const { return surface_; }

 private:
  struct Font {
    std::array<std::uint8_t, 0x2000> rows{};
  };

  [[nodiscard]] std::span<const std::uint8_t> fetch(std::span<const std::uint8_t> vram,
                                                    std::uint32_t address);
  [[nodiscard]] bool line_dirty(const DirtyPages& dirty, std::uint32_t address) const;
  void draw_blank();
  void draw_graphics(std::span<const std::uint8_t> vram, const DirtyPages& dirty, bool all);
  void draw_text(std::span<const std::uint8_t> vram, bool memory_changed, bool all, Nanoseconds now);
  bool load_fonts(std::span<const std::uint8_t> vram);
  void read_cells(std::span<const std::uint8_t> vram, std::uint32_t address, bool cursor_on, bool blink_on);
  void draw_text_line(unsigned y, unsigned row, unsigned pan);
  void convert(std::span<const std::uint8_t> bytes);

  Surface surface_;
  VgaFrame frame_;
  VgaPalette palette_;
  bool valid_ = false;
  std::vector<std::uint8_t> wrapped_;  // a line that wraps around the end of memory, in one piece
  std::vector<std::uint32_t> line_;    // pixels of one line, with room for what panning cuts off
  std::array<Font, 2> fonts_{};
  std::vector<std::uint32_t> cells_;                     // one row of text, as draw_text() compares them
  std::vector<std::vector<std::uint32_t>> drawn_cells_;  // what is on the surface, for each run of lines
  std::uint64_t blink_phase_ = 0;
};

/// The characters of a text frame.
[[nodiscard]] TextScreen read_text(const VgaFrame& frame, std::span<const std::uint8_t> vram);

}  // namespace whistler
