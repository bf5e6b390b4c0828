// whistler nbd --list: what another server offers.
#pragma once

#include "tools/nbd/options.hpp"
#include "tools/tool.hpp"

namespace whistler::tools::nbd {

/// The exit status.
[[nodiscard]] int list_exports(const Call& call, const Options& options);

}  // namespace whistler::tools::nbd
