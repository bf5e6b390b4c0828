// The images to serve: opened, and described for the server.
#pragma once

#include <memory>
#include <vector>

#include "block/nbd/export.hpp"
#include "block/node.hpp"
#include "tools/nbd/options.hpp"

namespace whistler::tools::nbd {

/// Open images, for as long as they are served.
struct Images {
  std::vector<whistler::nbd::Export> exports;
  /// Those of the exports, each once, with their nodes.
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<std::shared_ptr<BlockDevice>> devices;
};

/// Everything that `options` asks for. The message is what the tool prints after its name.
[[nodiscard]] Result<Images> open_images(Ring& ring, const whistler::tools::nbd::Options& options);

/// Flushes and closes all of them; the first error.
[[nodiscard]] Task<Result<void>> close_images(Images images);

}  // namespace whistler::tools::nbd
