// What the sub-commands share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "vmm/config/description.hpp"

namespace whistler {

/// `text` with control characters, which a hostile file name may have, written out.
[[nodiscard]] std::string one_line(std::string_view text);

/// An error for a person, to standard error: "whistler: MESSAGE", one line.
void report(std::string_view message);

/// The description in `file`, changed by the "path=value" arguments of --set. Warns of what this version
/// leaves out of it.
[[nodiscard]] Result<Description> read_description(const std::string& file,
                                                   const std::vector<std::string>& set);

}  // namespace whistler
