#include "vmm/qtest/qtest_protocol.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace whistler {
namespace {

constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::string_view kOk = "OK\n";
constexpr Nanoseconds kLatest = INT64_MAX / 2;  // devices add to it without fear of overflow

std::string failure(std::string_view why) { return fmt::format("FAIL {}\n", why); }

/// As C's strtoull with base 0: decimal, 0x hexadecimal, 0 octal; "-1" wraps.
std::optional<std::uint64_t> number(std::string_view text) {
  const bool negative = text.starts_with('-');
  text.remove_prefix(negative ? 1 : 0);
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    base = 16;
    text.remove_prefix(2);
  } else if (text.size() > 1 && text.starts_with('0')) {
    base = 8;
  }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return negative ? 0 - value : value;
}

std::optional<unsigned> width_of(char letter) {
  switch (letter) {
    case 'b': return 1;
    case 'w': return 2;
    case 'l': return 4;
    case 'q': return 8;
    default: return std::nullopt;
  }
}

std::string encode_base64(const std::vector<std::uint8_t>& bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t left = bytes.size() - i;
    const unsigned group = unsigned{bytes[i]} << 16 | (left > 1 ? unsigned{bytes[i + 1]} << 8 : 0U) |
                           (left > 2 ? bytes[i + 2] : 0U);
    text += kBase64[group >> 18 & 63];
    text += kBase64[group >> 12 & 63];
    text += left > 1 ? kBase64[group >> 6 & 63] : '=';
    text += left > 2 ? kBase64[group & 63] : '=';
  }
  return text;
}

std::vector<std::uint8_t> decode_base64(std::string_view text) {
  std::vector<std::uint8_t> bytes;
  unsigned group = 0;
  unsigned bits = 0;
  for (const char c : text) {
    const auto value = kBase64.find(c);
    if (value == std::string_view::npos) {
      continue;
    }
    group = group << 6 | static_cast<unsigned>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes.push_back(static_cast<std::uint8_t>(group >> bits));
    }
  }
  return bytes;
}

}  // namespace

void QtestIrqs::set_irq(unsigned input, bool level) {
  if (!intercepted_) {
    return;  // as in QEMU: a line that was high before is not known to be
  }
  if (input >= levels_.size()) {
    levels_.resize(input + 1);
  }
  if (levels_[input] == level) {
    return;
  }
  levels_[input] = level;
  send_(fmt::format("IRQ {} {}\n", level ? "raise" : "lower", input));
}

std::string QtestProtocol::execute(std::string_view line) {
  Words words;
  while (!line.empty()) {
    const auto end = std::min(line.find_first_of(" \t\r"), line.size());
    if (end != 0) {
      words.push_back(line.substr(0, end));
    }
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  if (words.empty()) {
    return failure("empty command");
  }
  const std::string_view verb = words[0];
  if (verb.starts_with("out") && verb.size() == 4) {
    if (const auto width = width_of(verb[3])) {
      return port_access(words, *width, true);
    }
  }
  if (verb.starts_with("in") && verb.size() == 3) {
    if (const auto width = width_of(verb[2])) {
      return port_access(words, *width, false);
    }
  }
  if (verb == "read" || verb == "b64read") {
    return read_block(words, verb != "read");
  }
  if (verb == "write" || verb == "b64write") {
    return write_block(words, verb != "write");
  }
  if (verb.starts_with("read") && verb.size() == 5) {
    if (const auto width = width_of(verb[4])) {
      return memory_access(words, *width, false);
    }
  }
  if (verb.starts_with("write") && verb.size() == 6) {
    if (const auto width = width_of(verb[5])) {
      return memory_access(words, *width, true);
    }
  }
  if (verb == "memset") {
    return fill(words);
  }
  if (verb == "endianness") {
    return "OK little\n";
  }
  if (verb == "module_load") {
    return std::string(kOk);
  }
  if (verb == "irq_intercept_in" || verb == "irq_intercept_out") {
    irqs_.intercept();
    return std::string(kOk);
  }
  if (verb == "set_irq_in") {
    const auto input = words.size() == 5 ? number(words[3]) : std::nullopt;
    const auto level = words.size() == 5 ? number(words[4]) : std::nullopt;
    if (!input || !level || *input > 255) {
      return failure("set_irq_in needs PATH NAME NUMBER LEVEL");
    }
    irqs_.set_irq(static_cast<unsigned>(*input), *level != 0);
    return std::string(kOk);
  }
  if (verb == "clock_step" || verb == "clock_set") {
    Nanoseconds target = 0;
    if (words.size() > 1) {
      const auto amount = number(words[1]);
      if (!amount || *amount > static_cast<std::uint64_t>(kLatest)) {
        return failure("the time is not a number of nanoseconds");
      }
      const Nanoseconds from = verb == "clock_step" ? clock_.now() : 0;
      if (static_cast<Nanoseconds>(*amount) > kLatest - from) {
        return failure("the time is too far away");
      }
      target = from + static_cast<Nanoseconds>(*amount);
    } else if (verb == "clock_step") {
      target = timers_.next_deadline().value_or(clock_.now());
    } else {
      return failure("clock_set needs a time");
    }
    advance_to(target);
    return fmt::format("OK {}\n", clock_.now());
  }
  return failure(fmt::format("Unknown command '{}'", verb.substr(0, 40)));
}

void QtestProtocol::advance_to(Nanoseconds moment) {
  // One deadline at a time, so that each timer sees its own moment as now.
  for (auto next = timers_.next_deadline(); next && *next <= moment; next = timers_.next_deadline()) {
    clock_.set(std::max(clock_.now(), *next));
    timers_.run_expired();
  }
  clock_.set(std::max(clock_.now(), moment));
}

std::string QtestProtocol::port_access(const Words& words, unsigned width, bool write) {
  const auto port = words.size() > 1 ? number(words[1]) : std::nullopt;
  const auto value = words.size() > 2 ? number(words[2]) : std::nullopt;
  if (!port || *port > 0xFFFF || width > 4 || (write && !value)) {
    return failure("a port access needs PORT, and VALUE to write");
  }
  if (write) {
    ports_.write(*port, width, *value & all_ones(width));
    return std::string(kOk);
  }
  return fmt::format("OK 0x{:04x}\n", ports_.read(*port, width));
}

std::string QtestProtocol::memory_access(const Words& words, unsigned width, bool write) {
  const auto address = words.size() > 1 ? number(words[1]) : std::nullopt;
  const auto value = words.size() > 2 ? number(words[2]) : std::nullopt;
  if (!address || (write && !value)) {
    return failure("a memory access needs ADDRESS, and VALUE to write");
  }
  if (write) {
    memory_.write(*address, width, *value & all_ones(width));
    return std::string(kOk);
  }
  return fmt::format("OK 0x{:016x}\n", memory_.read(*address, width));
}

std::string QtestProtocol::read_block(const Words& words, bool base64) {
  const auto address = words.size() > 1 ? number(words[1]) : std::nullopt;
  const auto length = words.size() > 2 ? number(words[2]) : std::nullopt;
  if (!address || !length || *length == 0 || *length > kMostBytes) {
    return failure("read needs ADDRESS SIZE, at most 64 MiB");
  }
  std::vector<std::uint8_t> bytes(*length);
  if (!memory_.peek(*address, bytes)) {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::uint8_t>(memory_.read(*address + i, 1));
    }
  }
  if (base64) {
    return fmt::format("OK {}\n", encode_base64(bytes));
  }
  return fmt::format("OK 0x{:02x}\n", fmt::join(bytes, ""));
}

std::string QtestProtocol::write_block(const Words& words, bool base64) {
  const auto address = words.size() > 1 ? number(words[1]) : std::nullopt;
  const auto length = words.size() > 2 ? number(words[2]) : std::nullopt;
  if (!address || !length || words.size() < 4 || *length > kMostBytes) {
    return failure("write needs ADDRESS SIZE DATA, at most 64 MiB");
  }
  std::vector<std::uint8_t> bytes;
  if (base64) {
    bytes = decode_base64(words[3]);
  } else {
    std::string_view digits = words[3];
    digits.remove_prefix(digits.starts_with("0x") ? 2 : 0);
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
      std::uint8_t byte = 0;
      std::from_chars(&digits[i], &digits[i] + 2, byte, 16);
      bytes.push_back(byte);
    }
  }
  bytes.resize(*length);  // what the data lacks is zero
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    memory_.write(*address + i, 1, bytes[i]);
  }
  return std::string(kOk);
}

std::string QtestProtocol::fill(const Words& words) {
  const auto address = words.size() > 1 ? number(words[1]) : std::nullopt;
  const auto length = words.size() > 2 ? number(words[2]) : std::nullopt;
  const auto value = words.size() > 3 ? number(words[3]) : std::nullopt;
  if (!address || !length || !value || *length > kMostBytes) {
    return failure("memset needs ADDRESS SIZE VALUE, at most 64 MiB");
  }
  for (std::uint64_t i = 0; i < *length; ++i) {
    memory_.write(*address + i, 1, *value & 0xFF);
  }
  return std::string(kOk);
}

}  // namespace whistler
