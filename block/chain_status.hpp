// What a chain of images says of a range without reading it.
#pragma once

#include "block/block_device.hpp"

namespace whistler {

struct ChainStatus {
  std::uint64_t bytes = 0;  ///< how far from the asked offset this answer holds
  bool allocated = false;   ///< a layer that was asked holds the content
  bool zero = false;        ///< the range reads as zeroes
  bool data = false;        ///< there is something to read: allocated, and not known to be zero
};

/// The answer of `top` and the layers below it down to `base`, which is not asked; null asks all of them. The
/// range must lie within `top`. Neighbouring stretches of the same kind are joined, as far as one question
/// more tells.
[[nodiscard]] Task<Result<ChainStatus>> chain_status(BlockDevice& top, const BlockDevice* base,
                                                     std::uint64_t offset, std::uint64_t bytes);

}  // namespace whistler
