// Giving an open image another place to stand on.
#pragma once

#include <optional>
#include <string>

#include "block/qcow2/image.hpp"

namespace whistler {

/// `overlay` stands on `base`, one of the layers below it, or on nothing (null), from now on, and stores that
/// under `name`; the layers in between are closed. Nothing may be in flight. What `overlay` shows must be the
/// same on both, and durable. After an error nothing has changed.
[[nodiscard]] Task<Result<void>> stand_on(qcow2::Image& overlay, BlockDevice* base,
                                          std::optional<std::string> name, std::optional<std::string> format);

/// Takes `base`, one of the layers below `top`, out of what it is part of; null: not there, or below one that
/// does not let go.
[[nodiscard]] std::unique_ptr<BlockDevice> take_out_layer(BlockDevice& top, const BlockDevice* base);

/// Closes an image nobody uses any more; what goes wrong with that is logged.
[[nodiscard]] Task<void> close_unused(std::unique_ptr<BlockDevice> image);

}  // namespace whistler
