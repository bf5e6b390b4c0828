// img bitmap: changes to the persistent dirty bitmaps of an image.
#pragma once

#include "tools/tool.hpp"

namespace whistler::tools {

/// `call.arguments`: what follows the command's name. The exit status.
[[nodiscard]] int bitmap_command(const Call& call);

}  // namespace whistler::tools
