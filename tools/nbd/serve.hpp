// whistler nbd as a server, from opening the images to closing them.
#pragma once

#include "tools/nbd/objects.hpp"
#include "tools/nbd/options.hpp"
#include "tools/tool.hpp"

namespace whistler::tools::nbd {

/// The exit status.
[[nodiscard]] int serve(const Call& call, const Options& options, const Objects& objects);

}  // namespace whistler::tools::nbd
