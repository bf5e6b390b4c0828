// Encryption in the graph of nodes: the keys that options name, and the format "luks".
#pragma once

#include "block/node_drivers.hpp"
#include "block/qcow2/image.hpp"

namespace whistler {

/// Unlocks an encrypted image with what its child "encrypt" says, unless only metadata is wanted. Puts into
/// `own` what belongs into the image's name. QEMU's message if the options do not fit the image.
[[nodiscard]] Task<Result<void>> unlock_image(qcow2::Image& image, Options encrypt, NodeFlags flags,
                                              Options& own);

[[nodiscard]] FormatDriver luks_format();

}  // namespace whistler
