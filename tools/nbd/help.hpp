// The texts of --help and --version.
#pragma once

#include <string>

namespace whistler::tools::nbd {

[[nodiscard]] std::string help_text(const std::string& program);
[[nodiscard]] std::string version_text(const std::string& program);

}  // namespace whistler::tools::nbd
