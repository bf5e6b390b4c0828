// What may change of a node that is open. QEMU's words for what may not.
#pragma once

#include "base/result.hpp"
#include "block/node.hpp"

namespace whistler {

/// Whether `node`, opened with the options `before`, can go on with those of `asked` instead. `asked` has
/// only what was asked for now; the rest stays.
[[nodiscard]] Result<void> check_reopen(const Node& node, Options asked, const Options& before);

}  // namespace whistler
