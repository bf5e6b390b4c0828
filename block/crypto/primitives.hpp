// Ciphers, hashes, key derivation and randomness: libgcrypt, which is named nowhere else.
//
// libgcrypt because it has every cipher and hash QEMU makes LUKS volumes with (serpent, twofish, cast5 and
// ripemd160 too, which OpenSSL lacks or hides), and is the faster of the two at XTS and PBKDF2.
#pragma once

#include <initializer_list>
#include <span>

#include "base/result.hpp"
#include "block/crypto/algorithms.hpp"
#include "block/crypto/secret.hpp"

namespace whistler::crypto {

using Bytes = std::span<std::uint8_t>;
using ConstBytes = std::span<const std::uint8_t>;

/// A cipher with its key. Wiped when it goes. Not for two threads at once.
class Cipher {
 public:
  /// `key` must have key_bytes(algorithm, mode) bytes. kUnsupported for a mode that needs other blocks.
  [[nodiscard]] static Result<Cipher> create(CipherAlgorithm algorithm, CipherMode mode, ConstBytes key);
  Cipher(Cipher&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)), mode_(other.mode_) {}
  Cipher& operator=(Cipher other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(mode_, other.mode_);
    return *this;
  }
  ~Cipher();

  /// `from` and `to` have the same length, whole blocks, and are the same bytes or do not overlap. `iv` is
  /// one block; empty for ECB.
  void encrypt(ConstBytes iv, ConstBytes from, std::uint8_t* to);
  void decrypt(ConstBytes iv, ConstBytes from, std::uint8_t* to);

 private:
  Cipher(void* handle, CipherMode mode) : handle_(handle), mode_(mode) {}
  void set_iv(ConstBytes iv);

  void* handle_;  ///< gcry_cipher_hd_t
  CipherMode mode_;
};

/// Hashes the pieces one after the other into `digest`, of digest_bytes(algorithm) bytes.
void hash(HashAlgorithm algorithm, std::initializer_list<ConstBytes> pieces, Bytes digest);

/// PBKDF2 (RFC 8018) with HMAC of that hash, filling `key`.
[[nodiscard]] Result<void> derive_key(HashAlgorithm algorithm, ConstBytes password, ConstBytes salt,
                                      std::uint64_t iterations, Bytes key);
/// How many iterations of it this processor does in a second, for a key of `key_bytes`.
[[nodiscard]] std::uint64_t iterations_per_second(HashAlgorithm algorithm, std::size_t key_bytes);

/// Bytes nobody can foretell.
void fill_random(Bytes bytes);

/// Whether both are the same, in a time that does not tell where they differ.
[[nodiscard]] bool equal(ConstBytes a, ConstBytes b);

}  // namespace whistler::crypto
