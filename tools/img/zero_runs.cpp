#include "tools/img/zero_runs.hpp"

#include <algorithm>
#include <cstring>

#include "block/iovec.hpp"

namespace whistler::tools {

namespace {

/// Most data shows that it is none of zeroes within its first bytes.
bool unit_is_zero(std::span<const std::uint8_t> unit) {
  std::uint64_t first = 0;
  if (unit.size() >= sizeof first) {
    std::memcpy(&first, unit.data(), sizeof first);
    if (first != 0) {
      return false;
    }
  }
  return is_zero(unit);
}

}  // namespace

Stretch first_stretch(std::span<const std::uint8_t> buffer, std::uint64_t offset, std::size_t min_zero,
                      std::size_t alignment) {
  if (min_zero == 0) {
    return {true, buffer.size()};
  }
  std::size_t at = 0;
  std::size_t zeroes = 0;  // the run of zeroes that ends at `at`
  std::size_t data_end = 0;
  while (at < buffer.size()) {
    const auto into_unit = static_cast<std::size_t>((offset + at) & (alignment - 1));
    const auto unit = std::min(alignment - into_unit, buffer.size() - at);
    if (unit_is_zero(buffer.subspan(at, unit))) {
      zeroes += unit;
      if (data_end != 0 && zeroes >= min_zero) {
        return {true, data_end};
      }
    } else {
      if (data_end == 0 && zeroes != 0) {
        return {false, zeroes};
      }
      zeroes = 0;
      data_end = at + unit;
    }
    at += unit;
  }
  if (data_end == 0) {
    return {false, at};
  }
  return {true, zeroes == 0 ? at : data_end};
}

}  // namespace whistler::tools
