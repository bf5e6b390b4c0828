// What commands print about a request: how much, how fast, or what went wrong.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.hpp"

namespace whistler::tools::io {

using Clock = std::chrono::steady_clock;

/// "64 KiB", "1.500 MiB", "40 bytes".
[[nodiscard]] std::string size_text(double bytes);

struct Report {
  const char* verb;  ///< "read", "wrote"
  std::uint64_t offset;
  std::uint64_t bytes;
  Clock::time_point begin;
  bool machine_readable;
};
/// The two lines (or one of commas) about a request that has just succeeded.
void print_report(const Report& report);

/// Sixteen bytes a line, hexadecimal and as text; `offset` is that of the first.
void dump(std::span<const std::uint8_t> bytes, std::uint64_t offset);

/// "WHAT failed: REASON", the reason in the host's words.
void print_failure(const char* what, const Error& error);
/// The errno that stands for `error`.
[[nodiscard]] int errno_of(const Error& error);

}  // namespace whistler::tools::io
