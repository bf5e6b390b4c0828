// The names and sizes of what disks are encrypted with. No computation of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace whistler::crypto {

enum class CipherAlgorithm : std::uint8_t {
  kAes128,
  kAes192,
  kAes256,
  kDes,
  kTripleDes,
  kCast5,
  kSerpent128,
  kSerpent192,
  kSerpent256,
  kTwofish128,
  kTwofish192,
  kTwofish256,
};
enum class CipherMode : std::uint8_t { kEcb, kCbc, kXts, kCtr };
/// How the initialisation vector of a sector is made from its number.
enum class IvGenerator : std::uint8_t {
  kPlain,    ///< the low 32 bits
  kPlain64,  ///< all 64 bits
  kEssiv,    ///< 64 bits, encrypted with a hash of the key
};
enum class HashAlgorithm : std::uint8_t { kMd5, kSha1, kSha224, kSha256, kSha384, kSha512, kRipemd160 };

/// The names as options and `info` have them ("aes-256", "xts", "plain64", "sha256").
[[nodiscard]] std::string_view name_of(CipherAlgorithm algorithm);
[[nodiscard]] std::string_view name_of(CipherMode mode);
[[nodiscard]] std::string_view name_of(IvGenerator generator);
[[nodiscard]] std::string_view name_of(HashAlgorithm algorithm);
[[nodiscard]] std::optional<CipherAlgorithm> cipher_named(std::string_view name);
[[nodiscard]] std::optional<CipherMode> cipher_mode_named(std::string_view name);
[[nodiscard]] std::optional<IvGenerator> iv_generator_named(std::string_view name);
[[nodiscard]] std::optional<HashAlgorithm> hash_named(std::string_view name);

/// The name a LUKS header has for the family of a cipher ("aes" for aes-256); "" for those it has none for.
[[nodiscard]] std::string_view luks_family(CipherAlgorithm algorithm);
/// The cipher of a LUKS family with keys of so many bytes.
[[nodiscard]] std::optional<CipherAlgorithm> cipher_of_family(std::string_view family, std::size_t key_bytes);

/// Bytes of one key; XTS takes two of them.
[[nodiscard]] std::size_t key_bytes(CipherAlgorithm algorithm);
[[nodiscard]] inline std::size_t key_bytes(CipherAlgorithm algorithm, CipherMode mode) {
  return key_bytes(algorithm) * (mode == CipherMode::kXts ? 2 : 1);
}
[[nodiscard]] std::size_t block_bytes(CipherAlgorithm algorithm);
[[nodiscard]] std::size_t digest_bytes(HashAlgorithm algorithm);

}  // namespace whistler::crypto
