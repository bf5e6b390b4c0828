// Changes the size of a disk as resize and truncate do, and refuses what QEMU's tools refuse.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "block/block_device.hpp"

namespace whistler::tools {

struct SizeChange {
  std::string format;  ///< the image's driver
  std::uint64_t bytes = 0;
  Preallocation preallocation = Preallocation::kOff;  ///< of what is added
};

/// "off", "metadata", "falloc", "full".
[[nodiscard]] std::optional<Preallocation> parse_preallocation(std::string_view text);

[[nodiscard]] Task<Result<void>> change_size(BlockDevice& device, SizeChange change);

}  // namespace whistler::tools
