#include "tools/io/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstring>

namespace whistler::tools::io {

std::string size_text(double bytes) {
  constexpr std::array kUnits = {" EiB", " PiB", " TiB", " GiB", " MiB", " KiB"};
  int shift = 60;
  for (const auto* const unit : kUnits) {
    const double one = std::ldexp(1.0, shift);
    if (bytes >= one) {
      auto text = fmt::format("{:.3f}", bytes / one);
      const auto round = text.find(".000");
      return text.substr(0, round) + unit;
    }
    shift -= 10;
  }
  const auto text = fmt::format("{:f}", bytes);
  return text.substr(0, text.find(".000")) + " bytes";
}

namespace {

std::string time_text(double seconds, bool always_hours) {
  const auto whole = static_cast<std::uint64_t>(seconds);
  const auto hours = whole / 3600;
  if (hours == 0 && !always_hours) {
    return fmt::format("{:05.2f} sec", seconds);
  }
  const auto rest = seconds - static_cast<double>(whole / 60 * 60);
  return fmt::format("{}:{:02}:{:05.2f}", hours, whole / 60 % 60, rest);
}

}  // namespace

void print_report(const Report& report) {
  const double seconds = std::chrono::duration<double>(Clock::now() - report.begin).count();
  const auto bytes = static_cast<double>(report.bytes);
  if (report.machine_readable) {
    fmt::print("{},1,{},{:.3f},{:.3f}\n", report.bytes, time_text(seconds, true), bytes / seconds,
               1 / seconds);
    return;
  }
  fmt::print("{} {}/{} bytes at offset {}\n", report.verb, report.bytes, report.bytes, report.offset);
  fmt::print("{}, 1 ops; {} ({}/sec and {:.4f} ops/sec)\n", size_text(bytes), time_text(seconds, false),
             size_text(bytes / seconds), 1 / seconds);
}

void dump(std::span<const std::uint8_t> bytes, std::uint64_t offset) {
  for (std::size_t at = 0; at < bytes.size(); at += 16) {
    const auto row = bytes.subspan(at, std::min<std::size_t>(16, bytes.size() - at));
    fmt::print("{:08x}:  ", offset + at);
    for (const auto byte : row) {
      fmt::print("{:02x} ", byte);
    }
    fmt::print(" ");
    for (const auto byte : row) {
      fmt::print("{}", std::isalnum(byte) != 0 ? static_cast<char>(byte) : '.');
    }
    fmt::print("\n");
  }
}

int errno_of(const Error& error) {
  if (error.sys_errno != 0) {
    return error.sys_errno;
  }
  switch (error.code) {
    case ErrorCode::kInvalid: return EINVAL;
    case ErrorCode::kNotFound: return ENOENT;
    case ErrorCode::kExists: return EEXIST;
    case ErrorCode::kPermission: return EPERM;
    case ErrorCode::kBusy: return EBUSY;
    case ErrorCode::kUnsupported: return ENOTSUP;
    case ErrorCode::kNoSpace: return ENOSPC;
    case ErrorCode::kCancelled: return ECANCELED;
    case ErrorCode::kCorrupt:
    case ErrorCode::kIo: return EIO;
  }
  return EIO;
}

void print_failure(const char* what, const Error& error) {
  fmt::print("{} failed: {}\n", what, std::strerror(errno_of(error)));
}

}  // namespace whistler::tools::io
