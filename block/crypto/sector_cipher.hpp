// Encrypts a disk by sectors of 512 bytes, each for itself, with its number as what makes it differ.
#pragma once

#include <array>
#include <optional>

#include "block/block_device.hpp"
#include "block/crypto/primitives.hpp"

namespace whistler::crypto {

inline constexpr std::size_t kSectorBytes = 512;

struct CipherSpec {
  CipherAlgorithm cipher = CipherAlgorithm::kAes256;
  CipherMode mode = CipherMode::kXts;
  IvGenerator iv = IvGenerator::kPlain64;
  /// Used by essiv alone; others may name one.
  std::optional<HashAlgorithm> iv_hash = {};

  bool operator==(const CipherSpec&) const = default;
};

class SectorCipher {
 public:
  /// `key` must have key_bytes(spec.cipher, spec.mode) bytes. kUnsupported for what does not go together.
  [[nodiscard]] static Result<SectorCipher> create(const CipherSpec& spec, ConstBytes key);

  /// Whole sectors, the first of them number `sector`. `from` and `to` are the same bytes or do not overlap.
  void encrypt(std::uint64_t sector, ConstBytes from, std::uint8_t* to);
  void decrypt(std::uint64_t sector, ConstBytes from, std::uint8_t* to);

  /// The same for scattered memory, whatever its pieces; together they are whole sectors. What is encrypted
  /// stays as it is; decryption is in place.
  void encrypt(std::uint64_t sector, IoVec from, std::uint8_t* to);
  void decrypt(std::uint64_t sector, IoVec data);

 private:
  SectorCipher(const CipherSpec& spec, Cipher cipher) : spec_(spec), cipher_(std::move(cipher)) {}
  /// The initialisation vector of a sector, of one block; empty for ECB.
  [[nodiscard]] ConstBytes iv_of(std::uint64_t sector);

  CipherSpec spec_;
  Cipher cipher_;
  std::optional<Cipher> essiv_;
  std::array<std::uint8_t, 16> iv_{};
};

/// How QEMU's old encryption of qcow2 uses a password: its first 16 bytes are the key.
[[nodiscard]] Result<SectorCipher> legacy_aes_cipher(ConstBytes password);

}  // namespace whistler::crypto
