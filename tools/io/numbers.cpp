#include "tools/io/numbers.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace whistler::tools::io {

namespace {

enum class Wrong : std::uint8_t { kText, kTooLarge };

/// The factor of a unit, 0 for what is none.
std::uint64_t unit_factor(char unit) {
  constexpr const char* kUnits = "bkmgtpe";
  const char lower = (unit >= 'A' && unit <= 'Z') ? static_cast<char>(unit - 'A' + 'a') : unit;
  const auto* const found = lower != '\0' ? std::strchr(kUnits, lower) : nullptr;
  return found != nullptr ? std::uint64_t{1} << (10 * (found - kUnits)) : 0;
}

std::expected<std::uint64_t, Wrong> parse_size(const Session& session, const char* text) {
  char* end = nullptr;
  errno = 0;
  std::uint64_t value = std::strtoull(text, &end, 10);
  if (end == text || std::memchr(text, '-', static_cast<std::size_t>(end - text)) != nullptr) {
    return std::unexpected(Wrong::kText);
  }
  double fraction = 0;
  bool hexadecimal = false;
  if (errno == 0 && value == 0 && (*end == 'x' || *end == 'X')) {
    hexadecimal = true;
    value = std::strtoull(text, &end, 16);
  } else if (errno == 0 && *end == '.') {
    const char* const point = end;
    fraction = std::strtod(point, &end);
    if (end == point) {
      ++end;  // "1.k"
    } else if (std::strcspn(point, "eE") < static_cast<std::size_t>(end - point)) {
      return std::unexpected(Wrong::kText);
    }
  }
  if (errno == ERANGE) {
    return std::unexpected(Wrong::kTooLarge);
  }
  std::uint64_t factor = unit_factor(*end);
  if (factor != 0) {
    if (hexadecimal) {
      session.complain(
          fmt::format("warning: Using a multiplier suffix on hex numbers is deprecated: {}", text));
    }
    ++end;
  } else {
    factor = 1;
  }
  if (*end != '\0' || (factor == 1 && fraction != 0)) {
    return std::unexpected(Wrong::kText);
  }
  const auto part = static_cast<std::uint64_t>(fraction * static_cast<double>(factor));
  if (value > (std::numeric_limits<std::uint64_t>::max() - part) / factor) {
    return std::unexpected(Wrong::kTooLarge);
  }
  const auto bytes = value * factor + part;
  if (bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return std::unexpected(Wrong::kTooLarge);
  }
  return bytes;
}

}  // namespace

std::optional<std::uint64_t> parse_bytes(const Session& session, const char* text) {
  const auto bytes = parse_size(session, text);
  if (bytes) {
    return *bytes;
  }
  if (bytes.error() == Wrong::kText) {
    fmt::print("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {}\n", text);
  } else {
    fmt::print("Parsing error: argument too large -- {}\n", text);
  }
  return std::nullopt;
}

std::optional<std::uint8_t> parse_pattern(const char* text) {
  char* end = nullptr;
  const long value = std::strtol(text, &end, 0);
  if (value < 0 || value > 0xff || *end != '\0') {
    fmt::print("{} is not a valid pattern byte\n", text);
    return std::nullopt;
  }
  return static_cast<std::uint8_t>(value);
}

}  // namespace whistler::tools::io
