// Numbers as the commands take them: sizes with a unit, bytes to fill memory with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tools/io/session.hpp"

namespace whistler::tools::io {

/// The longest request: what an int can count in whole sectors.
inline constexpr std::uint64_t kLongestRequest = 0x7fffffff / 512 * 512;

/// A count of bytes: decimal with an optional fraction and unit (b, k, M, G, T, P, E), or hexadecimal. What
/// is no such number, or beyond 2^63, is complained about on standard output.
[[nodiscard]] std::optional<std::uint64_t> parse_bytes(const Session& session, const char* text);

/// 0 to 255, decimal, octal or hexadecimal; complains otherwise.
[[nodiscard]] std::optional<std::uint8_t> parse_pattern(const char* text);

}  // namespace whistler::tools::io
