// Zeroes as data, for where there is no other way to have them.
#pragma once

#include <cstdint>

#include "block/block_device.hpp"

namespace whistler {

/// Writes zeroes to [offset, offset + bytes), a MiB at a time. The first error ends it; what was written
/// stays.
[[nodiscard]] Task<Result<void>> write_plain_zeroes(BlockDevice& device, std::uint64_t offset,
                                                    std::uint64_t bytes);

}  // namespace whistler
