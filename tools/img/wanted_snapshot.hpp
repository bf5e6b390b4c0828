// The snapshot -l names, for the commands that read one in place of the disk.
#pragma once

#include <optional>
#include <string>

#include "block/node.hpp"
#include "tools/tool.hpp"

namespace whistler::tools {

struct WantedSnapshot {
  std::string id;
  std::string name;
  std::string either;  ///< an id or, failing that, a name
};

/// The argument of -l; nothing after a complaint.
[[nodiscard]] std::optional<WantedSnapshot> read_wanted_snapshot(const Call& call, const std::string& text);
/// From here on the image shows what it was then. False after a complaint.
[[nodiscard]] bool show_wanted_snapshot(const Call& call, Ring& ring, const Node& node,
                                        const WantedSnapshot& wanted);

}  // namespace whistler::tools
