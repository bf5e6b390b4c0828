// Names that are the same but for the case of their letters.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace whistler::plan {

/// `text` with the letters A to Z made small; all else stays as it is.
[[nodiscard]] inline std::string lower_case(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return result;
}

}  // namespace whistler::plan
