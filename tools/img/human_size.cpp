#include "tools/img/human_size.hpp"

#include <array>
#include <cmath>
#include <cstdio>

namespace whistler::tools {

std::string human_size(std::uint64_t bytes) {
  static constexpr std::array kUnits = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  // The unit whose number is below 1000, not 1024.
  int exponent = 0;
  std::frexp(static_cast<double>(bytes) / (1000.0 / 1024.0), &exponent);
  const auto unit = static_cast<unsigned>(exponent > 0 ? (exponent - 1) / 10 : 0);
  const double value = static_cast<double>(bytes) / static_cast<double>(std::uint64_t{1} << (unit * 10));
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%0.3g %sB", value, kUnits[unit]);
  return text.data();
}

}  // namespace whistler::tools
