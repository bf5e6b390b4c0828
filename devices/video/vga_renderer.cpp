#include "devices/video/vga_renderer.hpp"

#include <algorithm>

#include "base/bytes.hpp"

namespace whistler {
namespace {

using Kind = VgaFrame::Kind;

// The cursor changes every 16 pictures of 1/60 s, blinking characters half as often.
constexpr Nanoseconds kCursorPhase = kNanosecondsPerSecond * 16 / 60;

// A text cell as it is compared: the character, the attribute in bits 8 to 15, and:
constexpr std::uint32_t kCellCursor = 1U << 16;
constexpr std::uint32_t kCellHidden = 1U << 17;  // a blinking character in its dark phase

constexpr std::uint32_t rgb(std::uint32_t r, std::uint32_t g, std::uint32_t b) {
  return r << 16 | g << 8 | b;
}
constexpr std::uint32_t widen5(std::uint32_t v) { return v << 3 | v >> 2; }
constexpr std::uint32_t widen6(std::uint32_t v) { return v << 2 | v >> 4; }

/// One pixel of `Depth` bits (15, 16, 24, 32) stored in `order`.
template <unsigned Depth, std::endian order>
std::uint32_t pixel(const std::uint8_t* from) {
  if constexpr (Depth == 15 || Depth == 16) {
    std::uint16_t v = 0;
    std::memcpy(&v, from, sizeof v);
    v = swap_to<order>(v);
    if constexpr (Depth == 15) {
      return rgb(widen5(v >> 10 & 31U), widen5(v >> 5 & 31U), widen5(v & 31U));
    } else {
      return rgb(widen5(v >> 11 & 31U), widen6(v >> 5 & 63U), widen5(v & 31U));
    }
  } else if constexpr (Depth == 24) {
    return order == std::endian::little ? rgb(from[2], from[1], from[0]) : rgb(from[0], from[1], from[2]);
  } else {
    std::uint32_t v = 0;
    std::memcpy(&v, from, sizeof v);
    return swap_to<order>(v) & 0x00FFFFFF;
  }
}

template <unsigned Depth, std::endian order>
void convert_direct(std::span<const std::uint8_t> from, std::uint32_t* to) {
  constexpr std::size_t kStep = (Depth + 7) / 8;
  for (std::size_t i = 0; i + kStep <= from.size(); i += kStep) {
    *to++ = pixel<Depth, order>(&from[i]);
  }
}

template <unsigned Depth>
void convert_direct(std::span<const std::uint8_t> from, std::uint32_t* to, bool big_endian) {
  if (big_endian) {
    convert_direct<Depth, std::endian::big>(from, to);
  } else {
    convert_direct<Depth, std::endian::little>(from, to);
  }
}

/// Writes `dot_width` pixels and moves on.
inline void put_dot(std::uint32_t*& to, std::uint32_t color, unsigned dot_width) {
  *to++ = color;
  if (dot_width == 2) {
    *to++ = color;
  }
}

/// Eight dots of each group of four plane bytes: bit 7 - i of each plane makes dot i.
void convert_planar(std::span<const std::uint8_t> from, std::uint32_t* to, const VgaFrame& frame,
                    const VgaPalette& palette) {
  for (std::size_t at = 0; at + 4 <= from.size(); at += 4) {
    const unsigned p0 = from[at], p1 = from[at + 1], p2 = from[at + 2], p3 = from[at + 3];
    for (unsigned bit = 8; bit-- > 0;) {
      const unsigned color =
          (p0 >> bit & 1) | (p1 >> bit & 1) << 1 | (p2 >> bit & 1) << 2 | (p3 >> bit & 1) << 3;
      put_dot(to, palette.sixteen[color & frame.planes], frame.dot_width);
    }
  }
}

/// Eight dots of each group: four from plane 0, four from plane 1, two bits each; planes 2 and 3 give the
/// upper bits.
void convert_cga(std::span<const std::uint8_t> from, std::uint32_t* to, const VgaFrame& frame,
                 const VgaPalette& palette) {
  for (std::size_t at = 0; at + 4 <= from.size(); at += 4) {
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned low = from[at + half], high = from[at + half + 2];
      for (unsigned shift = 8; shift > 0;) {
        shift -= 2;
        const unsigned color = (low >> shift & 3) | (high >> shift & 3) << 2;
        put_dot(to, palette.sixteen[color & frame.planes], frame.dot_width);
      }
    }
  }
}

}  // namespace

VgaPalette decode_palette(const VgaRegisters& registers, bool eight_bit_dac) {
  const auto& ar = registers.state().AR;
  const unsigned select = ar[attribute::kColorSelect];
  const bool replace_middle =
      (ar[attribute::kModeControl] & 0x80) != 0;  // bits 4 and 5 come from colour select, too
  VgaPalette palette;
  for (unsigned i = 0; i < 256; ++i) {
    palette.all[i] = registers.color(i, eight_bit_dac);
  }
  for (unsigned i = 0; i < 16; ++i) {
    const unsigned index =
        replace_middle ? (select & 0x0F) << 4 | (ar[i] & 0x0FU) : (select & 0x0C) << 4 | (ar[i] & 0x3FU);
    palette.sixteen[i] = palette.all[index];
  }
  return palette;
}

// The size of a monitor that has not been told anything.
VgaRenderer::VgaRenderer() { surface_.resize(640, 480); }

void VgaRenderer::draw(const VgaFrame& frame, const VgaPalette& palette, std::span<const std::uint8_t> vram,
                       const DirtyPages& dirty, Nanoseconds now) {
  const bool memory_changed = dirty.any();
  const bool all = !valid_ || frame != frame_ || palette != palette_;
  if (!all && !memory_changed && frame.kind != Kind::kText) {
    return;
  }
  frame_ = frame;
  palette_ = palette;
  valid_ = true;
  switch (frame.kind) {
    case Kind::kBlank:
      if (all) {
        draw_blank();
      }
      return;
    case Kind::kText: draw_text(vram, memory_changed, all, now); return;
    default: draw_graphics(vram, dirty, all); return;
  }
}

void VgaRenderer::draw_blank() {
  const std::vector<std::uint32_t> black(surface_.width());
  for (unsigned y = 0; y < surface_.height(); ++y) {
    surface_.put(0, y, black);
  }
}

std::span<const std::uint8_t> VgaRenderer::fetch(std::span<const std::uint8_t> vram, std::uint32_t address) {
  const std::uint32_t length = frame_.line_bytes();
  const std::uint32_t before_wrap = frame_.wrap - address;
  if (length <= before_wrap) {
    return vram.subspan(address, length);
  }
  wrapped_.resize(length);
  std::copy_n(&vram[address], before_wrap, wrapped_.begin());
  // Lines are shorter than the memory, so they wrap once.
  std::copy_n(vram.begin(), length - before_wrap, wrapped_.begin() + before_wrap);
  return wrapped_;
}

bool VgaRenderer::line_dirty(const DirtyPages& dirty, std::uint32_t address) const {
  const std::uint32_t length = frame_.line_bytes();
  const std::uint32_t before_wrap = frame_.wrap - address;
  return dirty.any(address, std::min(length, before_wrap)) ||
         (length > before_wrap && dirty.any(0, length - before_wrap));
}

void VgaRenderer::draw_graphics(std::span<const std::uint8_t> vram, const DirtyPages& dirty, bool all) {
  surface_.resize(frame_.width, frame_.height);
  line_.resize(std::size_t{frame_.width} + 16);
  LineWalker walker(frame_);
  LineWalker::Line previous;
  bool drawn = false;  // whether line_ holds the picture of `previous`
  for (unsigned y = 0; y < frame_.height; ++y) {
    const auto line = walker.next();
    const bool same = y != 0 && line.address == previous.address && line.pan == previous.pan;
    if (!same) {
      previous = line;
      drawn = all || line_dirty(dirty, line.address);
      if (drawn) {
        convert(fetch(vram, line.address));
      }
    }
    if (drawn) {
      // Panning drops dots at the left; a packed pixel is two dots and moves by whole pixels.
      const unsigned skip = frame_.kind == Kind::kPacked ? line.pan & 6 : line.pan * frame_.dot_width;
      surface_.put(0, y, std::span(line_).subspan(skip, frame_.width));
    }
  }
}

void VgaRenderer::convert(std::span<const std::uint8_t> bytes) {
  auto* to = line_.data();
  switch (frame_.kind) {
    case Kind::kPlanar: convert_planar(bytes, to, frame_, palette_); break;
    case Kind::kCga: convert_cga(bytes, to, frame_, palette_); break;
    case Kind::kPacked:
      for (const auto index : bytes) {
        put_dot(to, palette_.all[index], 2);
      }
      break;
    case Kind::k8:
      for (const auto index : bytes) {
        *to++ = palette_.all[index];
      }
      break;
    case Kind::k15: convert_direct<15>(bytes, to, frame_.big_endian); break;
    case Kind::k16: convert_direct<16>(bytes, to, frame_.big_endian); break;
    case Kind::k24: convert_direct<24>(bytes, to, frame_.big_endian); break;
    case Kind::k32: convert_direct<32>(bytes, to, frame_.big_endian); break;
    case Kind::kBlank:
    case Kind::kText: break;
  }
}

/// Takes the two fonts out of plane 2; true if they are not those drawn with so far.
bool VgaRenderer::load_fonts(std::span<const std::uint8_t> vram) {
  constexpr unsigned kPlane = 2;
  bool changed = false;
  for (unsigned set = 0; set < fonts_.size(); ++set) {
    const auto* from = &vram[std::size_t{frame_.text.font[set]} * 4 + kPlane];
    for (auto& row : fonts_[set].rows) {
      changed = changed || row != *from;
      row = *from;
      from += 4;
    }
  }
  return changed;
}

void VgaRenderer::read_cells(std::span<const std::uint8_t> vram, std::uint32_t address, bool cursor_on,
                             bool blink_on) {
  const auto bytes = fetch(vram, address);
  const std::uint32_t cell_mask = frame_.wrap / 4 - 1;
  cells_.resize(frame_.text.columns + 1);
  for (std::uint32_t i = 0; i < cells_.size(); ++i) {
    std::uint32_t cell = load_le<std::uint16_t>(&bytes[std::size_t{i} * 4]);
    if (frame_.text.blink && !blink_on && (cell & 0x8000) != 0) {
      cell |= kCellHidden;
    }
    if (cursor_on && ((address / 4 + i) & cell_mask) == frame_.text.cursor_cell) {
      cell |= kCellCursor;
    }
    cells_[i] = cell;
  }
}

void VgaRenderer::draw_text_line(unsigned y, unsigned row, unsigned pan) {
  const auto& text = frame_.text;
  auto* to = line_.data();
  for (const auto cell : cells_) {
    const unsigned character = cell & 0xFF;
    const unsigned attributes = cell >> 8 & 0xFF;
    const auto& font = fonts_[attributes >> 3 & 1].rows;
    const std::uint32_t ink = palette_.sixteen[attributes & frame_.planes & 0x0F];
    const std::uint32_t paper =
        palette_.sixteen[attributes >> 4 & (text.blink ? 0x07U : 0x0FU) & frame_.planes];
    unsigned dots =
        (cell & kCellHidden) != 0 ? 0U : font[character * 32 + row] * 2U;  // bits 8 to 0, left to right
    if (text.line_graphics && (character & 0xE0) == 0xC0) {
      dots |= dots >> 1 & 1;
    }
    const bool underlined = row == text.underline_row && (attributes & 0x07) == 1;
    const bool cursor = (cell & kCellCursor) != 0 && row >= text.cursor_first && row <= text.cursor_last;
    if (underlined || cursor) {
      dots = 0x1FF;
    }
    for (unsigned dot = 0; dot < text.cell_width; ++dot) {
      put_dot(to, (dots >> (8 - dot) & 1) != 0 ? ink : paper, frame_.dot_width);
    }
  }
  surface_.put(0, y, std::span(line_).subspan(std::size_t{pan} * frame_.dot_width, frame_.width));
}

// Lines that show the same row of memory form a run. A run is drawn if any of its cells changed.
void VgaRenderer::draw_text(std::span<const std::uint8_t> vram, bool memory_changed, bool all,
                            Nanoseconds now) {
  const auto phase = static_cast<std::uint64_t>(now / kCursorPhase);
  if (!all && !memory_changed && phase == blink_phase_) {
    return;
  }
  blink_phase_ = phase;
  const bool cursor_on = (phase & 1) == 0;
  const bool blink_on = (phase & 2) == 0;
  surface_.resize(frame_.width, frame_.height);
  line_.resize(std::size_t{frame_.text.columns + 1} * frame_.text.cell_width * frame_.dot_width);
  if (load_fonts(vram)) {
    all = true;
  }
  LineWalker walker(frame_);
  LineWalker::Line run;
  std::size_t runs = 0;
  bool draw_run = false;
  for (unsigned y = 0; y < frame_.height; ++y) {
    const auto line = walker.next();
    if (y == 0 || line.address != run.address || line.pan != run.pan) {
      run = line;
      read_cells(vram, line.address, cursor_on, blink_on);
      if (runs == drawn_cells_.size()) {
        drawn_cells_.emplace_back();
      }
      draw_run = all || drawn_cells_[runs] != cells_;
      if (draw_run) {
        drawn_cells_[runs] = cells_;
      }
      ++runs;
    }
    if (draw_run) {
      draw_text_line(y, line.row, line.pan);
    }
  }
}

TextScreen read_text(const VgaFrame& frame, std::span<const std::uint8_t> vram) {
  TextScreen screen;
  screen.columns = frame.text.columns;
  LineWalker walker(frame);
  std::optional<std::uint32_t> previous;
  for (unsigned y = 0; y < frame.height; ++y) {
    const auto line = walker.next();
    if (previous == line.address) {
      continue;
    }
    previous = line.address;
    for (std::uint32_t column = 0; column < screen.columns; ++column) {
      const std::uint32_t at = (line.address + column * 4) & (frame.wrap - 1);
      if (at / 4 == frame.text.cursor_cell && frame.text.cursor_first <= frame.text.cursor_last &&
          frame.text.cursor_first < frame.rows) {
        screen.cursor = screen.rows * screen.columns + column;
      }
      screen.characters.push_back(vram[at]);
      screen.attributes.push_back(vram[at + 1]);
    }
    ++screen.rows;
  }
  return screen;
}

}  // namespace whistler
