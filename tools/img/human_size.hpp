// Sizes as QEMU's tools show them.
#pragma once

#include <cstdint>
#include <string>

namespace whistler::tools {

/// "1 MiB", "2.19 MiB": three digits.
[[nodiscard]] std::string human_size(std::uint64_t bytes);

}  // namespace whistler::tools
