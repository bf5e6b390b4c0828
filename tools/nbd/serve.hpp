// whistler nbd as a server, from opening the images to closing them.
#pragma once

#include "tools/nbd/options.hpp"
#include "tools/tool.hpp"

namespace whistler::tools::nbd {

/// The exit status.
[[nodiscard]] int serve(const Call& call, const Options& options);

}  // namespace whistler::tools::nbd
