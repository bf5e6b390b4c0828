// Finds out whether a machine could be built, without a CPU and without leaving a trace.
#pragma once

#include "base/result.hpp"
#include "vmm/config/description.hpp"

namespace whistler {

/// Opens everything the description names, plugs the board together without CPUs, and throws it away. Creates
/// and changes nothing.
[[nodiscard]] Result<void> dry_build(const Description& description);

}  // namespace whistler
