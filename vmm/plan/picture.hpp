// Pictures of screens, and how much two of them differ.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace whistler::plan {

struct Picture {
  using Pixel = std::array<std::uint8_t, 4>;  ///< red, green, blue, opacity
  unsigned width = 0, height = 0;
  std::vector<Pixel> pixels;  ///< row by row
  [[nodiscard]] const Pixel& at(unsigned x, unsigned y) const { return pixels[std::size_t{y} * width + x]; }
};

/// A PNG file of at most 64 million pixels.
[[nodiscard]] Result<Picture> read_png(const std::string& path);

/// How many pixels differ; all of them if the sizes do.
[[nodiscard]] std::size_t different_pixels(const Picture& a, const Picture& b);

/// Where to compare, and how well.
struct Comparison {
  unsigned x = 0, y = 0;   ///< of the part's upper left corner in the whole
  unsigned tolerance = 0;  ///< how far each of red, green and blue may be off
};

/// Which share of the pixels of `part` differs from `whole`, in percent: 100 where it does not fit. Pixels
/// count where `mask`, of the size of `part`, is white, and where `part` is not transparent; if none counts,
/// 100.
[[nodiscard]] double share_different(const Picture& whole, const Picture& part, const Picture* mask,
                                     const Comparison& how);

}  // namespace whistler::plan
