// Integers of a fixed byte order in memory: loads, stores, and field types for on-disk and wire structures.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace whistler {

/// `value` converted between the host's byte order and `order` (its own inverse).
template <std::endian order, std::integral T>
[[nodiscard]] constexpr T swap_to(T value) {
  if constexpr (order == std::endian::native || sizeof(T) == 1) {
    return value;
  } else {
    return std::byteswap(value);
  }
}

/// Reads a T of the given byte order; `from` need not be aligned and must hold sizeof(T) bytes.
template <std::integral T>
[[nodiscard]] inline T load_le(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return swap_to<std::endian::little>(value);
}
template <std::integral T>
[[nodiscard]] inline T load_be(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return swap_to<std::endian::big>(value);
}

/// Writes a T in the given byte order; `to` need not be aligned and must hold sizeof(T) bytes.
template <std::integral T>
inline void store_le(void* to, std::type_identity_t<T> value) {
  value = swap_to<std::endian::little>(value);
  std::memcpy(to, &value, sizeof value);
}
template <std::integral T>
inline void store_be(void* to, std::type_identity_t<T> value) {
  value = swap_to<std::endian::big>(value);
  std::memcpy(to, &value, sizeof value);
}

/// The same for a width known only at run time: the low `bytes` (1 to 8) of a value.
[[nodiscard]] inline std::uint64_t load_little(const void* from, std::size_t bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, from, bytes);
  return swap_to<std::endian::little>(value);
}
inline void store_little(void* to, std::size_t bytes, std::uint64_t value) {
  value = swap_to<std::endian::little>(value);
  std::memcpy(to, &value, bytes);
}

/// An integer stored in `order`, at any address: it has no alignment and no padding, so structures of such
/// fields can be read and written as bytes.
template <std::integral T, std::endian order>
class EndianField {
 public:
  constexpr EndianField() = default;
  constexpr EndianField(T value)
      : raw_(std::bit_cast<Raw>(swap_to<order>(value))) {}  // NOLINT: converts by design
  constexpr operator T() const {
    return swap_to<order>(std::bit_cast<T>(raw_));
  }  // NOLINT: converts by design

 private:
  using Raw = std::array<std::uint8_t, sizeof(T)>;
  Raw raw_{};
};
template <std::integral T>
using Be = EndianField<T, std::endian::big>;
template <std::integral T>
using Le = EndianField<T, std::endian::little>;

/// `value` rounded down / up to a multiple of `unit`, a power of two.
[[nodiscard]] constexpr std::uint64_t align_down(std::uint64_t value, std::uint64_t unit) {
  return value & ~(unit - 1);
}
[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t unit) {
  return align_down(value + unit - 1, unit);
}

/// Bits [first, first + count) of `value`.
template <std::unsigned_integral T>
[[nodiscard]] constexpr T bits(T value, unsigned first, unsigned count) {
  return static_cast<T>((value >> first) & ((T{1} << count) - 1));
}

}  // namespace whistler
