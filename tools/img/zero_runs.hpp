// Where in a buffer there is data, and where zeroes worth leaving out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace whistler::tools {

struct Stretch {
  bool data = false;
  std::size_t bytes = 0;
};

/// The stretch at the beginning of `buffer`. Zeroes count as such in whole units of `alignment` (a power of
/// two, of the disk's offsets: the buffer lies at `offset`); within data only runs of at least `min_zero`
/// bytes end it. With a `min_zero` of 0 everything is data.
[[nodiscard]] Stretch first_stretch(std::span<const std::uint8_t> buffer, std::uint64_t offset,
                                    std::size_t min_zero, std::size_t alignment);

}  // namespace whistler::tools
