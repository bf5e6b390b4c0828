// Pixels to the bytes of a PNG file.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"

namespace whistler {

/// `rgb` has three bytes for each of the width * height pixels, row by row.
[[nodiscard]] Result<std::vector<std::uint8_t>> encode_png(unsigned width, unsigned height,
                                                           std::span<const std::uint8_t> rgb);

}  // namespace whistler
