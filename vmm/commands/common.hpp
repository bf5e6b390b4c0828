// What the sub-commands share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "vmm/config/description.hpp"

namespace whistler {

/// An error for a person, to standard error: "whistler: MESSAGE".
void report(std::string_view message);

/// "path=value" arguments of --set.
[[nodiscard]] Result<std::vector<Override>> parse_overrides(const std::vector<std::string>& arguments);

}  // namespace whistler
