// Makes the image that convert and dd write into.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "block/uring/ring.hpp"

namespace whistler::tools {

struct NewTarget {
  std::string path;
  std::string format;
  std::uint64_t size = 0;
  std::vector<std::string> options = {};  ///< the arguments of -o
  std::optional<std::string> backing_file = {};
  std::optional<std::string> backing_format = {};
};

/// Whether images of that format can be made.
[[nodiscard]] bool is_creatable(const std::string& format);
/// Errors are in QEMU's words. An existing file is replaced.
[[nodiscard]] Result<void> create_target(Ring& ring, const NewTarget& target);

}  // namespace whistler::tools
