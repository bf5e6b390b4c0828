// The header of LUKS version 1 as arithmetic: read from hostile bytes, checked, made. No I/O, no keys.
// Source: the LUKS on-disk format specification, version 1.2.3.
#pragma once

#include <array>
#include <string>

#include "block/crypto/sector_cipher.hpp"

namespace whistler::crypto {

inline constexpr std::size_t kLuksHeaderBytes = 592;
inline constexpr std::size_t kLuksSlots = 8;
inline constexpr std::uint32_t kLuksStripes = 4000;
/// Key material begins no earlier than here, and at multiples of it.
inline constexpr std::uint32_t kLuksSlotAlignment = 4096;
inline constexpr std::size_t kLuksDigestBytes = 20;
inline constexpr std::size_t kLuksSaltBytes = 32;
/// More is refused, in a header and for a new one: it would make opening take minutes.
inline constexpr std::uint32_t kMaxLuksIterations = 1U << 27;
inline constexpr std::uint32_t kMinLuksIterations = 1000;

/// What a new volume is to be like; the defaults are QEMU's.
struct LuksOptions {
  CipherSpec cipher = {};
  HashAlgorithm hash = HashAlgorithm::kSha256;
  /// How long deriving a key from a password shall take, on this processor.
  std::uint64_t iteration_milliseconds = 2000;
};

struct LuksSlot {
  bool active = false;
  std::uint32_t iterations = 0;
  std::array<std::uint8_t, kLuksSaltBytes> salt = {};
  std::uint64_t offset = 0;  ///< of the key material, from the beginning of the header; whole sectors
};

/// The fields in host order.
struct LuksHeader {
  CipherSpec cipher = {};
  HashAlgorithm hash = HashAlgorithm::kSha256;
  std::uint64_t payload_offset = 0;  ///< bytes; whole sectors
  std::array<std::uint8_t, kLuksDigestBytes> digest = {};
  std::array<std::uint8_t, kLuksSaltBytes> salt = {};
  std::uint32_t iterations = 0;  ///< for the digest of the master key
  std::string uuid;
  std::array<LuksSlot, kLuksSlots> slots = {};
  /// As in the file: what is written back where a field is not understood or not changed.
  std::array<std::uint8_t, kLuksHeaderBytes> raw = {};

  /// Bytes of the master key, and of the key that encrypts a slot.
  [[nodiscard]] std::size_t key_bytes() const { return crypto::key_bytes(cipher.cipher, cipher.mode); }
  /// Bytes of one slot's key material, in whole sectors.
  [[nodiscard]] std::size_t material_bytes() const;
  [[nodiscard]] std::size_t active_slots() const;
  /// Changes a slot, in `raw` too.
  void set_slot(std::size_t index, const LuksSlot& slot);
  void set_digest(const std::array<std::uint8_t, kLuksSaltBytes>& new_salt, std::uint32_t new_iterations,
                  const std::array<std::uint8_t, kLuksDigestBytes>& new_digest);
};

/// Whether `bytes` begin like a LUKS volume of any version.
[[nodiscard]] bool looks_like_luks(ConstBytes bytes);

/// `bytes`: at least the first kLuksHeaderBytes of the volume, else it is none. Errors say what is wrong in
/// the words QEMU has for it.
[[nodiscard]] Result<LuksHeader> parse_luks_header(ConstBytes bytes);

/// A header with the places of everything, all slots inactive, a new uuid, but no keys yet.
[[nodiscard]] Result<LuksHeader> plan_luks_header(const LuksOptions& options);

}  // namespace whistler::crypto
