// The check every layer with a fixed size makes first.
#pragma once

#include <string>

#include "base/result.hpp"
#include "block/block_device.hpp"

namespace whistler {

/// kPermission for a write to a read-only device, kInvalid for a range beyond its end.
[[nodiscard]] Result<void> check_request(const BlockDevice& device, std::uint64_t offset, std::uint64_t bytes,
                                         bool write);

}  // namespace whistler
