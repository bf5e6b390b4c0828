// What the commands ask of an image that depends on its format.
#pragma once

#include <cstdint>
#include <string>

#include "tools/io/session.hpp"

namespace whistler::tools::io {

/// Format, cluster size, where the state of a machine would go, and what else the format tells of itself.
/// False if it tells nothing.
bool print_info(Ring& ring, const OpenedImage& image);

/// Whether what `status` describes is this image's own, rather than its backing file's.
[[nodiscard]] bool is_allocated(const OpenedImage& image, const BlockStatus& status);

}  // namespace whistler::tools::io
