// Where one layer of an image keeps a range, as far as can be told without reading it.
#pragma once

#include "block/node.hpp"

namespace whistler {

struct NodeStatus {
  std::uint64_t bytes = 0;                   ///< how far this answer holds
  bool data = false;                         ///< must be read to be known
  bool zero = false;                         ///< reads as zeroes
  bool allocated = false;                    ///< this layer, not one below, says what is there
  std::optional<std::uint64_t> offset = {};  ///< in `file`
  const Node* file = nullptr;
};

/// The range must lie within the node, or begin behind the end of a backing node, where zeroes are.
[[nodiscard]] Task<Result<NodeStatus>> node_status(const Node& node, std::uint64_t offset,
                                                   std::uint64_t bytes);

}  // namespace whistler
