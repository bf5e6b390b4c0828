// Keys by the names scripts use for them: QEMU's QKeyCode, which `sendkey` and `send-key` take.
#pragma once

#include <optional>
#include <string_view>

#include "devices/core/input.hpp"

namespace whistler {

/// The key called `name` ("a", "ret", "ctrl", "kp_enter", ...), or nothing.
[[nodiscard]] std::optional<KeyNumber> key_by_name(std::string_view name);

}  // namespace whistler
