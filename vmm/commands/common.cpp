#include "vmm/commands/common.hpp"

#include <fmt/format.h>

#include <cstdio>

namespace whistler {

void report(std::string_view message) { fmt::print(stderr, "whistler: {}\n", message); }

Result<std::vector<Override>> parse_overrides(const std::vector<std::string>& arguments) {
  std::vector<Override> overrides;
  for (const auto& argument : arguments) {
    const auto equals = argument.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(ErrorCode::kInvalid, fmt::format("--set {}: must be PATH=VALUE, like memory=512M", argument));
    }
    overrides.push_back({argument.substr(0, equals), argument.substr(equals + 1)});
  }
  return overrides;
}

}  // namespace whistler
