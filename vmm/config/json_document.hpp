// JSON as people write it for Whistler: read with care, and changed by path.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.hpp"
#include "vmm/config/description.hpp"

namespace whistler {

/// A document of at most 16 levels with no key twice in one object; comments are allowed. The error is one
/// line, without the name of the file.
[[nodiscard]] Result<nlohmann::json> parse_json(std::string_view text);

/// Changes one value of a description.
[[nodiscard]] Result<void> apply_override(nlohmann::json& document, const Override& change);

}  // namespace whistler
