#include "block/crypto/primitives.hpp"

#include <fmt/format.h>
#include <gcrypt.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>

namespace whistler::crypto {

namespace {

/// libgcrypt wants to be told once how it is used. Its locked memory is not: it is small, and keys are wiped.
void start_library() {
  static const bool started = [] {
    if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P) == 0) {
      gcry_check_version(nullptr);
      gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
      gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    }
    return true;
  }();
  static_cast<void>(started);
}

int library_cipher(CipherAlgorithm algorithm) {
  static constexpr std::array<int, 12> kIds = {
      GCRY_CIPHER_AES128,     GCRY_CIPHER_AES192,     GCRY_CIPHER_AES256,     GCRY_CIPHER_DES,
      GCRY_CIPHER_3DES,       GCRY_CIPHER_CAST5,      GCRY_CIPHER_SERPENT128, GCRY_CIPHER_SERPENT192,
      GCRY_CIPHER_SERPENT256, GCRY_CIPHER_TWOFISH128, GCRY_CIPHER_TWOFISH,    GCRY_CIPHER_TWOFISH,
  };
  return kIds[static_cast<std::size_t>(algorithm)];
}

int library_mode(CipherMode mode) {
  static constexpr std::array<int, 4> kIds = {GCRY_CIPHER_MODE_ECB, GCRY_CIPHER_MODE_CBC,
                                              GCRY_CIPHER_MODE_XTS, GCRY_CIPHER_MODE_CTR};
  return kIds[static_cast<std::size_t>(mode)];
}

int library_hash(HashAlgorithm algorithm) {
  static constexpr std::array<int, 7> kIds = {GCRY_MD_MD5,    GCRY_MD_SHA1,   GCRY_MD_SHA224, GCRY_MD_SHA256,
                                              GCRY_MD_SHA384, GCRY_MD_SHA512, GCRY_MD_RMD160};
  return kIds[static_cast<std::size_t>(algorithm)];
}

/// What only a mistake of this program can make fail.
void require(gcry_error_t error) {
  if (error != 0) {
    std::abort();
  }
}

gcry_cipher_hd_t as_handle(void* handle) { return static_cast<gcry_cipher_hd_t>(handle); }

std::uint64_t cpu_nanoseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

Result<Cipher> Cipher::create(CipherAlgorithm algorithm, CipherMode mode, ConstBytes key) {
  start_library();
  // The library has no twofish with 192-bit keys.
  if (algorithm == CipherAlgorithm::kTwofish192) {
    return fail(ErrorCode::kUnsupported, fmt::format("Algorithm '{}' not supported", name_of(algorithm)));
  }
  if (mode == CipherMode::kXts && block_bytes(algorithm) != 16) {
    return fail(ErrorCode::kUnsupported, fmt::format("Unsupported cipher mode {}", name_of(mode)));
  }
  if (key.size() != key_bytes(algorithm, mode)) {
    return fail(ErrorCode::kInvalid,
                fmt::format("Cipher key length {} should be {}", key.size(), key_bytes(algorithm, mode)));
  }
  gcry_cipher_hd_t handle = nullptr;
  auto error = gcry_cipher_open(&handle, library_cipher(algorithm), library_mode(mode), 0);
  if (error == 0) {
    error = gcry_cipher_setkey(handle, key.data(), key.size());
    if (error != 0 && gcry_err_code(error) != GPG_ERR_WEAK_KEY) {
      gcry_cipher_close(handle);
    } else {
      error = 0;
    }
  }
  if (error != 0) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("{} in mode {}: {}", name_of(algorithm), name_of(mode), gcry_strerror(error)));
  }
  return Cipher(handle, mode);
}

Cipher::~Cipher() {
  gcry_cipher_close(as_handle(handle_));  // wipes the key
}

void Cipher::set_iv(ConstBytes iv) {
  if (iv.empty()) {
    return;
  }
  require(mode_ == CipherMode::kCtr ? gcry_cipher_setctr(as_handle(handle_), iv.data(), iv.size())
                                    : gcry_cipher_setiv(as_handle(handle_), iv.data(), iv.size()));
}

void Cipher::encrypt(ConstBytes iv, ConstBytes from, std::uint8_t* to) {
  set_iv(iv);
  require(gcry_cipher_encrypt(as_handle(handle_), to, from.size(), from.data(), from.size()));
}

void Cipher::decrypt(ConstBytes iv, ConstBytes from, std::uint8_t* to) {
  set_iv(iv);
  require(gcry_cipher_decrypt(as_handle(handle_), to, from.size(), from.data(), from.size()));
}

void hash(HashAlgorithm algorithm, std::initializer_list<ConstBytes> pieces, Bytes digest) {
  start_library();
  gcry_md_hd_t handle = nullptr;
  require(gcry_md_open(&handle, library_hash(algorithm), 0));
  for (const auto piece : pieces) {
    gcry_md_write(handle, piece.data(), piece.size());
  }
  const auto* result = gcry_md_read(handle, 0);
  std::copy_n(result, digest_bytes(algorithm), digest.begin());
  gcry_md_close(handle);
}

Result<void> derive_key(HashAlgorithm algorithm, ConstBytes password, ConstBytes salt,
                        std::uint64_t iterations, Bytes key) {
  start_library();
  static constexpr std::uint8_t kNothing = 0;  // the library refuses a null pointer
  const auto* text = password.empty() ? &kNothing : password.data();
  const auto error =
      gcry_kdf_derive(text, password.size(), GCRY_KDF_PBKDF2, library_hash(algorithm), salt.data(),
                      salt.size(), static_cast<unsigned long>(iterations), key.size(), key.data());
  if (error != 0) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("PBKDF2 with {}: {}", name_of(algorithm), gcry_strerror(error)));
  }
  return {};
}

std::uint64_t iterations_per_second(HashAlgorithm algorithm, std::size_t key_bytes) {
  constexpr std::uint64_t kEnough = 30'000'000;  // nanoseconds
  constexpr std::uint64_t kMost = 1 << 24;
  static constexpr std::array<std::uint8_t, 8> kPassword = {'p', 'a', 's', 's', 'w', 'o', 'r', 'd'};
  const std::array<std::uint8_t, 32> salt = {1, 2, 3};
  Secret key(key_bytes);
  for (std::uint64_t iterations = 1 << 12;; iterations *= 2) {
    const auto begin = cpu_nanoseconds();
    const auto derived = derive_key(algorithm, kPassword, salt, iterations, key.bytes());
    const auto spent = std::max<std::uint64_t>(cpu_nanoseconds() - begin, 1);
    if (!derived || spent >= kEnough || iterations >= kMost) {
      return std::max<std::uint64_t>(iterations * 1'000'000'000 / spent, 1);
    }
  }
}

void fill_random(Bytes bytes) {
  start_library();
  gcry_randomize(bytes.data(), bytes.size(), GCRY_STRONG_RANDOM);
}

bool equal(ConstBytes a, ConstBytes b) {
  unsigned different = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    different |= static_cast<unsigned>(a[i] ^ b[i]);
  }
  return different == 0;
}

}  // namespace whistler::crypto
