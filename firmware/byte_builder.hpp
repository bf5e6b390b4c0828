// Builds little-endian tables byte by byte.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/bytes.hpp"

namespace whistler {

class ByteBuilder {
 public:
  std::vector<std::uint8_t> bytes;

  /// Appends an integer at its own width: add<std::uint16_t>(9).
  template <std::unsigned_integral T>
  void add(std::type_identity_t<T> value) {
    const auto at = bytes.size();
    bytes.resize(at + sizeof value);
    store_le<T>(&bytes[at], value);
  }
  void add8(unsigned value) { bytes.push_back(static_cast<std::uint8_t>(value)); }
  /// The characters, cut or zero-padded to `width`.
  void add_text(std::string_view text, std::size_t width) {
    const auto at = bytes.size();
    bytes.resize(at + width);
    text.copy(reinterpret_cast<char*>(bytes.data() + at), width);
  }
  void add_bytes(std::span<const std::uint8_t> more) { bytes.insert(bytes.end(), more.begin(), more.end()); }
  void add_zeros(std::size_t count) { bytes.resize(bytes.size() + count); }
  void align(std::size_t unit) { bytes.resize(align_up(bytes.size(), unit)); }
  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(bytes.size()); }
};

/// What must be added so that the sum of `bytes` modulo 256 is zero.
[[nodiscard]] inline std::uint8_t checksum_of(std::span<const std::uint8_t> bytes) {
  unsigned sum = 0;
  for (const auto byte : bytes) {
    sum += byte;
  }
  return static_cast<std::uint8_t>(0U - sum);
}

}  // namespace whistler
