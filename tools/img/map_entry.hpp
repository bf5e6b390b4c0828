// What `map` tells of a range, and `compare -s` compares.
#pragma once

#include <optional>
#include <string>

#include "block/node.hpp"

namespace whistler::tools {

struct MapEntry {
  std::uint64_t start = 0;
  std::uint64_t length = 0;
  unsigned depth = 0;  ///< how many images above the one that has the content
  bool present = false;
  bool zero = false;
  bool data = false;
  std::optional<std::uint64_t> offset = {};  ///< in the file, where the content lies there as it is
  std::string filename = {};
};

/// The answer of the chain of images, for up to `bytes` from `start` on.
[[nodiscard]] Result<MapEntry> map_entry_at(Ring& ring, const Node& top, std::uint64_t start,
                                            std::uint64_t bytes);

}  // namespace whistler::tools
