// What the registers say about the picture: a plain description, worked out anew for each picture and
// compared with the last. Missing: the CRTC's vertical doubling (bit 2 of its mode control), count-by-two
// clocking, cursor skew, overscan. Documentation: IBM Video Subsystem Technical Reference (VGA), CRT
// controller and attribute controller; FreeVGA.
#pragma once

#include <array>
#include <cstdint>

#include "devices/video/vbe_dispi.hpp"
#include "devices/video/vga_registers.hpp"

namespace whistler {

struct VgaFrame {
  enum class Kind : std::uint8_t {
    kBlank,  ///< nothing is shown; the size is that of the picture before
    kText,
    kPlanar,  ///< 16 colours, a bit in each plane
    kCga,     ///< 4 colours, two bits in each byte, from planes 0 and 1 (and 2 and 3 above them)
    kPacked,  ///< VGA 256 colours, each pixel two dots wide
    k8,       ///< VBE, by depth
    k15,
    k16,
    k24,
    k32,
  };
  /// A text cell's shape and attributes.
  struct Text {
    unsigned columns = 0;
    unsigned cell_width = 8;              ///< dots: 8 or 9
    bool line_graphics = false;           ///< the ninth dot of C0..DF repeats the eighth
    bool blink = false;                   ///< attribute bit 7 blinks, else it brightens the background
    unsigned underline_row = 32;          ///< row of a cell at which blue-on-anything is underlined; 32: none
    std::array<std::uint32_t, 2> font{};  ///< byte in plane 2 of the font for attribute bit 3 clear and set
    std::uint32_t cursor_cell = 0;        ///< address (in cells from the start of memory)
    unsigned cursor_first = 32;           ///< rows; first > last: no cursor
    unsigned cursor_last = 0;
    bool operator==(const Text&) const = default;
  };

  Kind kind = Kind::kBlank;
  unsigned width = 0;  ///< of the surface, in pixels
  unsigned height = 0;
  unsigned dot_width = 1;          ///< surface pixels a dot
  std::uint32_t start = 0;         ///< byte of video memory of the first line
  std::uint32_t pitch = 0;         ///< bytes from one row of memory to the next
  std::uint32_t wrap = 0;          ///< addresses are taken modulo this power of two
  unsigned line_compare = 0xFFFF;  ///< after this line, memory is shown from address 0
  unsigned rows = 1;               ///< scan lines a row of memory, 1..32
  unsigned first_row = 0;          ///< row at which the picture starts
  bool doubled = false;            ///< each scan line is shown twice
  unsigned pan = 0;                ///< dots by which the picture is shifted to the left
  bool pan_stops_at_split = false;
  std::uint32_t row_bit_0 = 0;  ///< address bit (in bytes) replaced by bit 0 of the row, or 0
  std::uint32_t row_bit_1 = 0;
  unsigned planes = 15;     ///< planes that reach the palette
  bool big_endian = false;  ///< byte order of pixels of 15 bits and more
  Text text;
  bool operator==(const VgaFrame&) const = default;

  /// Bytes of video memory behind one line, panned pixels included.
  [[nodiscard]] std::uint32_t line_bytes() const;
};

/// No picture has more pixels than this, whatever the registers say: lower lines are cut off.
inline constexpr unsigned kMaxPicturePixels = 16U << 20;

/// `vram_size` in bytes.
[[nodiscard]] VgaFrame decode_frame(const VgaRegisters& registers, const VbeDispi& vbe,
                                    std::uint64_t vram_size, bool big_endian);

/// Where the lines of a picture come from, top to bottom.
class LineWalker {
 public:
  struct Line {
    std::uint32_t address = 0;  ///< byte of video memory, row bits included, below wrap
    unsigned row = 0;           ///< 0..31, of the character or the CGA interleave
    unsigned pan = 0;
  };
  explicit LineWalker(const VgaFrame& frame)
      : frame_(frame), address_(frame.start), row_(frame.first_row), pan_(frame.pan) {}
  /// The next line; to be called `height` times.
  Line next();

 private:
  const VgaFrame& frame_;
  std::uint32_t address_;
  unsigned row_;
  unsigned pan_;
  bool repeated_ = false;
  unsigned y_ = 0;
};

}  // namespace whistler
