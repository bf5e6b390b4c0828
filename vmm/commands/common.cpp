#include "vmm/commands/common.hpp"

#include <fmt/format.h>

#include <cstdio>

namespace whistler {

std::string one_line(std::string_view text) {
  std::string line;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      line += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      line += c;
    }
  }
  return line;
}

namespace {

/// A hostile name can be long; what it is and why stand at the ends.
std::string shortened(std::string line) {
  constexpr std::size_t kMost = 800;
  if (line.size() > kMost) {
    line.replace(kMost / 2, line.size() - kMost, " ... ");
  }
  return line;
}

/// "path=value" arguments of --set.
Result<std::vector<Override>> parse_overrides(const std::vector<std::string>& arguments) {
  std::vector<Override> overrides;
  for (const auto& argument : arguments) {
    const auto equals = argument.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("--set {}: must be PATH=VALUE, like memory=512M", argument));
    }
    overrides.push_back({argument.substr(0, equals), argument.substr(equals + 1)});
  }
  return overrides;
}

}  // namespace

void report(std::string_view message) { fmt::print(stderr, "whistler: {}\n", shortened(one_line(message))); }

Result<Description> read_description(const std::string& file, const std::vector<std::string>& set) {
  const auto overrides = parse_overrides(set);
  if (!overrides) {
    return std::unexpected(overrides.error());
  }
  auto description = load_description(file, *overrides);
  if (description) {
    for (const auto& line : description->left_out) {
      report("warning: " + line);
    }
  }
  return description;
}

}  // namespace whistler
