#include "devices/video/vga_frame.hpp"

#include <algorithm>

#include "devices/video/planar_memory.hpp"

namespace whistler {
namespace {

using Kind = VgaFrame::Kind;

constexpr std::uint32_t kFontSize = 0x2000;  // bytes of plane 2: 256 characters of 32 rows

Kind vbe_kind(unsigned bpp) {
  switch (bpp) {
    case 4: return Kind::kPlanar;
    case 15: return Kind::k15;
    case 16: return Kind::k16;
    case 24: return Kind::k24;
    case 32: return Kind::k32;
    default: return Kind::k8;
  }
}

void decode_vbe(VgaFrame& frame, const VbeDispi& vbe, std::uint64_t vram_size) {
  frame.kind = vbe_kind(vbe.bpp());
  frame.width = vbe.width();
  frame.height = std::min(vbe.height(), kMaxPicturePixels / vbe.width());
  frame.start = vbe.start();
  frame.pitch = vbe.pitch();
  frame.wrap = static_cast<std::uint32_t>(vram_size);
}

void decode_text(VgaFrame& frame, const VgaRegisters& registers) {
  const auto& vga = registers.state();
  const unsigned map = vga.SR[sequencer::kCharacterMapSelect];
  const unsigned mode = vga.AR[attribute::kModeControl];
  auto& text = frame.text;
  text.columns = vga.CR[crtc::kHorizontalDisplayEnd] + 1U;
  text.cell_width = (vga.SR[sequencer::kClockingMode] & 0x01) != 0 ? 8 : 9;
  text.line_graphics = (mode & 0x04) != 0;
  text.blink = (mode & 0x08) != 0;
  text.underline_row = (mode & 0x02) != 0 ? vga.CR[crtc::kUnderlineLocation] & 0x1FU : 32;
  // The eight fonts lie at 0, 16, 32, 48, 8, 24, 40 and 56 KiB.
  const auto font = [](unsigned low, unsigned high) { return (low * 2 + high) * kFontSize; };
  text.font = {font(map & 3, map >> 4 & 1), font(map >> 2 & 3, map >> 5 & 1)};
  text.cursor_cell = vga.CR[crtc::kCursorLocationHigh] * 256U + vga.CR[crtc::kCursorLocationLow];
  const bool cursor_off = (vga.CR[crtc::kCursorStart] & 0x20) != 0;
  text.cursor_first = cursor_off ? 32 : vga.CR[crtc::kCursorStart] & 0x1FU;
  text.cursor_last = vga.CR[crtc::kCursorEnd] & 0x1FU;
  if (text.cell_width == 9) {  // here 8 is no shift, and 0 to 7 are one dot more
    frame.pan = frame.pan >= 8 ? 0 : frame.pan + 1;
  } else {
    frame.pan &= 7;
  }
  frame.kind = Kind::kText;
  frame.width = text.columns * text.cell_width * frame.dot_width;
}

void decode_graphics(VgaFrame& frame, const VgaRegisters& registers) {
  const auto& vga = registers.state();
  const unsigned shift = vga.GR[graphics::kGraphicsMode] >> 5 & 3;
  frame.kind = shift == 0 ? Kind::kPlanar : shift == 1 ? Kind::kCga : Kind::kPacked;
  if (frame.kind == Kind::kPacked) {
    frame.dot_width = 1;  // the two dots of a pixel are part of the kind
  }
  frame.pan &= 7;
  frame.width = (vga.CR[crtc::kHorizontalDisplayEnd] + 1U) * 8 * frame.dot_width;
  // Row bits stand in for bits 13 and 14 of the address; in word mode these are bits 12 and 13 of the
  // compacted one.
  const unsigned mode = vga.CR[crtc::kModeControl];
  const unsigned byte_mode = mode >> 6 & 1;
  frame.row_bit_0 = (mode & 0x01) == 0 ? 1U << (14 + byte_mode) : 0;
  frame.row_bit_1 = (mode & 0x02) == 0 ? 1U << (15 + byte_mode) : 0;
}

void decode_vga(VgaFrame& frame, const VgaRegisters& registers) {
  const auto& vga = registers.state();
  const unsigned scan = vga.CR[crtc::kMaximumScanLine];
  const unsigned preset = vga.CR[crtc::kPresetRowScan];
  const unsigned first =
      vga.CR[crtc::kStartAddressHigh] * 256U + vga.CR[crtc::kStartAddressLow] + (preset >> 5 & 3);
  frame.height = registers.display_lines();
  frame.dot_width = (vga.SR[sequencer::kClockingMode] & 0x08) != 0 ? 2 : 1;
  frame.start = first * 4 & (PlanarMemory::kVgaSize - 1);
  frame.pitch = vga.CR[crtc::kOffset] * 8U;
  frame.wrap = PlanarMemory::kVgaSize;
  frame.line_compare = registers.line_compare();
  frame.rows = (scan & 0x1F) + 1;
  frame.first_row = std::min(preset & 0x1F, frame.rows - 1);
  frame.doubled = (scan & 0x80) != 0;
  frame.pan = vga.AR[attribute::kPelPanning];
  frame.pan_stops_at_split = (vga.AR[attribute::kModeControl] & 0x20) != 0;
  frame.planes = vga.AR[attribute::kColorPlaneEnable] & 15U;
  if ((vga.GR[graphics::kMiscellaneous] & 1) == 0) {
    decode_text(frame, registers);
  } else {
    decode_graphics(frame, registers);
  }
}

}  // namespace

std::uint32_t VgaFrame::line_bytes() const {
  switch (kind) {
    case Kind::kBlank: return 0;
    case Kind::kText: return (text.columns + 1) * 4;
    case Kind::kPlanar:
    case Kind::kCga: return (width / dot_width / 8 + 1) * 4;
    case Kind::kPacked: return width / 2 + 4;
    case Kind::k8: return width;
    case Kind::k15:
    case Kind::k16: return width * 2;
    case Kind::k24: return width * 3;
    case Kind::k32: return width * 4;
  }
  return 0;
}

VgaFrame decode_frame(const VgaRegisters& registers, const VbeDispi& vbe, std::uint64_t vram_size,
                      bool big_endian) {
  const auto& vga = registers.state();
  VgaFrame frame;
  const bool shown = (vga.ar_index & 0x20) != 0 && (vga.SR[sequencer::kClockingMode] & 0x20) == 0;
  if (!shown) {
    return frame;
  }
  if (vbe.enabled() && (vga.GR[graphics::kMiscellaneous] & 1) != 0) {
    decode_vbe(frame, vbe, vram_size);
    frame.big_endian = big_endian;
  } else {
    decode_vga(frame, registers);
  }
  return frame;
}

LineWalker::Line LineWalker::next() {
  std::uint32_t address = address_;
  if (frame_.row_bit_0 != 0) {
    address = (address & ~frame_.row_bit_0) | ((row_ & 1) != 0 ? frame_.row_bit_0 : 0);
  }
  if (frame_.row_bit_1 != 0) {
    address = (address & ~frame_.row_bit_1) | ((row_ & 2) != 0 ? frame_.row_bit_1 : 0);
  }
  const Line line{address & (frame_.wrap - 1), row_, pan_};
  if (frame_.doubled && !repeated_) {
    repeated_ = true;
  } else {
    repeated_ = false;
    if (++row_ >= frame_.rows) {
      row_ = 0;
      address_ += frame_.pitch;
    }
  }
  if (y_++ == frame_.line_compare) {
    address_ = 0;
    row_ = 0;
    repeated_ = false;
    if (frame_.pan_stops_at_split) {
      pan_ = 0;
    }
  }
  return line;
}

}  // namespace whistler
