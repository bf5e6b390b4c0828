#include "devices/core/display.hpp"

#include <algorithm>
#include <array>
#include <string_view>

namespace whistler {
namespace {

// Code page 437 as Unicode, 32 characters a line (unicode.org, VENDORS/MICSFT/PC/CP437.TXT; 00-1F as the
// glyphs shown).
constexpr std::u16string_view kCodePage437 =
    u" ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
    u" !\"#$%&'()*+,-./0123456789:;<=>?"
    u"@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_"
    u"`abcdefghijklmnopqrstuvwxyz{|}~⌂"
    u"ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ"
    u"áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐"
    u"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀"
    u"αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0";
static_assert(kCodePage437.size() == 256);

void append_utf8(std::string& out, char16_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

unsigned tiles_for(unsigned pixels, unsigned tile) { return (pixels + tile - 1) / tile; }

}  // namespace

void Surface::resize(unsigned width, unsigned height) {
  if (width == width_ && height == height_) {
    return;
  }
  width_ = width;
  height_ = height;
  tiles_across_ = tiles_for(width, kTileWidth);
  ++generation_;
  pixels_.assign(std::size_t{width} * height, 0);
  tile_changed_.assign(std::size_t{tiles_across_} * tiles_for(height, kTileHeight), generation_);
}

void Surface::put(unsigned x, unsigned y, std::span<const std::uint32_t> pixels) {
  if (y >= height_ || x >= width_) {
    return;
  }
  pixels = pixels.first(std::min<std::size_t>(pixels.size(), width_ - x));
  auto* target = &pixels_[std::size_t{y} * width_ + x];
  for (std::size_t done = 0; done < pixels.size();) {
    const auto column = static_cast<unsigned>(x + done) / kTileWidth;
    const std::size_t length =
        std::min<std::size_t>(pixels.size() - done, (std::size_t{column} + 1) * kTileWidth - (x + done));
    const auto piece = pixels.subspan(done, length);
    if (!std::equal(piece.begin(), piece.end(), target + done)) {
      std::copy(piece.begin(), piece.end(), target + done);
      tile_changed_[std::size_t{y / kTileHeight} * tiles_across_ + column] = ++generation_;
    }
    done += length;
  }
}

std::vector<Rect> Surface::changes_since(std::uint64_t generation) const {
  std::vector<Rect> rects;
  if (generation >= generation_ || tiles_across_ == 0) {
    return rects;
  }
  std::size_t previous_row_begin = 0;  // the runs of the tile row above, which may grow downwards
  std::size_t previous_row_end = 0;
  for (unsigned tile_y = 0; tile_y * kTileHeight < height_; ++tile_y) {
    const std::size_t row_begin = rects.size();
    const unsigned y = tile_y * kTileHeight;
    const unsigned height = std::min(kTileHeight, height_ - y);
    for (unsigned column = 0; column < tiles_across_;) {
      if (tile_changed_[std::size_t{tile_y} * tiles_across_ + column] <= generation) {
        ++column;
        continue;
      }
      const unsigned first = column;
      while (column < tiles_across_ &&
             tile_changed_[std::size_t{tile_y} * tiles_across_ + column] > generation) {
        ++column;
      }
      const unsigned x = first * kTileWidth;
      const unsigned width = std::min(column * kTileWidth, width_) - x;
      rects.push_back({x, y, width, height});
    }
    // If this tile row changed in just the same columns as the one above, the rectangles above grow instead.
    const bool same =
        rects.size() - row_begin == previous_row_end - previous_row_begin && row_begin != rects.size() &&
        std::equal(rects.begin() + static_cast<std::ptrdiff_t>(row_begin), rects.end(),
                   rects.begin() + static_cast<std::ptrdiff_t>(previous_row_begin),
                   [y](const Rect& below, const Rect& above) {
                     return below.x == above.x && below.width == above.width && above.y + above.height == y;
                   });
    if (same) {
      for (std::size_t i = previous_row_begin; i < previous_row_end; ++i) {
        rects[i].height += height;
      }
      rects.resize(row_begin);
    } else {
      previous_row_begin = row_begin;
      previous_row_end = rects.size();
    }
  }
  return rects;
}

std::string TextScreen::line(unsigned row) const {
  std::string text;
  std::size_t kept = 0;
  for (unsigned column = 0; column < columns; ++column) {
    const auto c = characters[std::size_t{row} * columns + column];
    append_utf8(text, kCodePage437[c]);
    if (c != 0 && c != ' ' && c != 0xFF) {
      kept = text.size();
    }
  }
  text.resize(kept);
  return text;
}

}  // namespace whistler
