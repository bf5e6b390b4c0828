// Published vectors and values computed by another implementation.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "block/crypto/af_split.hpp"
#include "block/crypto/sector_cipher.hpp"

using namespace whistler;
using namespace whistler::crypto;

namespace {

using Buffer = std::vector<std::uint8_t>;

Buffer from_hex(const std::string& text) {
  Buffer bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::uint8_t>(std::stoul(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

Buffer from_text(const std::string& text) { return {text.begin(), text.end()}; }

Buffer derived(HashAlgorithm hash, const std::string& password, const std::string& salt, unsigned iterations,
               std::size_t bytes) {
  Buffer key(bytes);
  const auto done = derive_key(hash, from_text(password), from_text(salt), iterations, key);
  REQUIRE(done.has_value());
  return key;
}

/// Bytes 0 to 255, twice: the plain text of the long IEEE 1619 vectors.
Buffer ieee_text() {
  Buffer bytes(512);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  return bytes;
}

SectorCipher make(const CipherSpec& spec, const Buffer& key) {
  auto cipher = SectorCipher::create(spec, key);
  INFO((cipher ? std::string() : cipher.error().message));
  REQUIRE(cipher.has_value());
  return std::move(*cipher);
}

Buffer merged(HashAlgorithm hash, std::size_t key_bytes, std::uint32_t stripes) {
  Buffer split(key_bytes * stripes);
  for (std::size_t i = 0; i < split.size(); ++i) {
    split[i] = static_cast<std::uint8_t>(i * 7 + 3);
  }
  Buffer key(key_bytes);
  af_merge(hash, split, stripes, key);
  return key;
}

}  // namespace

TEST_CASE("pbkdf2_of_rfc_6070_gives_its_keys", "[crypto]") {
  CHECK(derived(HashAlgorithm::kSha1, "password", "salt", 1, 20) ==
        from_hex("0c60c80f961f0e71f3a9b524af6012062fe037a6"));
  CHECK(derived(HashAlgorithm::kSha1, "password", "salt", 4096, 20) ==
        from_hex("4b007901b765489abead49d926f721d065a429c1"));
  CHECK(derived(HashAlgorithm::kSha1, "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt",
                4096, 25) == from_hex("3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"));
}

TEST_CASE("pbkdf2_sha256_of_rfc_7914_gives_its_key", "[crypto]") {
  CHECK(derived(HashAlgorithm::kSha256, "passwd", "salt", 1, 64) ==
        from_hex("55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
                 "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"));
}

TEST_CASE("pbkdf2_of_an_empty_password_works", "[crypto]") {
  CHECK(derived(HashAlgorithm::kSha256, "", "salt", 2, 32) !=
        derived(HashAlgorithm::kSha256, "a", "salt", 2, 32));
}

TEST_CASE("xts_aes_128_of_ieee_1619_vector_4", "[crypto]") {
  auto cipher = make({.cipher = CipherAlgorithm::kAes128},
                     from_hex("2718281828459045235360287471352631415926535897932384626433832795"));
  Buffer out(512);
  cipher.encrypt(0, ieee_text(), out.data());
  CHECK(Buffer(out.begin(), out.begin() + 32) ==
        from_hex("27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"));
  cipher.decrypt(0, out, out.data());
  CHECK(out == ieee_text());
}

TEST_CASE("xts_aes_256_of_ieee_1619_vector_10", "[crypto]") {
  auto cipher = make({}, from_hex("2718281828459045235360287471352662497757247093699959574966967627"
                                  "3141592653589793238462643383279502884197169399375105820974944592"));
  Buffer out(512);
  cipher.encrypt(0xff, ieee_text(), out.data());
  CHECK(Buffer(out.begin(), out.begin() + 32) ==
        from_hex("1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"));
}

TEST_CASE("cbc_with_essiv_uses_the_encrypted_sector_number", "[crypto]") {
  const auto key = from_hex("000102030405060708090a0b0c0d0e0f");
  auto cipher = make({.cipher = CipherAlgorithm::kAes128,
                      .mode = CipherMode::kCbc,
                      .iv = IvGenerator::kEssiv,
                      .iv_hash = HashAlgorithm::kSha256},
                     key);
  Buffer digest(32);
  hash(HashAlgorithm::kSha256, {key}, digest);
  auto essiv = Cipher::create(CipherAlgorithm::kAes256, CipherMode::kEcb, digest);
  auto cbc = Cipher::create(CipherAlgorithm::kAes128, CipherMode::kCbc, key);
  REQUIRE(essiv.has_value());
  REQUIRE(cbc.has_value());
  Buffer iv = from_hex("39300000000000000000000000000000");  // 12345
  essiv->encrypt({}, iv, iv.data());
  Buffer expected(512);
  cbc->encrypt(iv, ieee_text(), expected.data());
  Buffer out(512);
  cipher.encrypt(12345, ieee_text(), out.data());
  CHECK(out == expected);
}

TEST_CASE("plain_generator_wraps_at_32_bits_and_plain64_does_not", "[crypto]") {
  const Buffer key(16, 5);
  auto plain =
      make({.cipher = CipherAlgorithm::kAes128, .mode = CipherMode::kCbc, .iv = IvGenerator::kPlain}, key);
  auto plain64 = make({.cipher = CipherAlgorithm::kAes128, .mode = CipherMode::kCbc}, key);
  Buffer low(512);
  Buffer wrapped(512);
  Buffer high(512);
  plain.encrypt(7, ieee_text(), low.data());
  plain.encrypt(0x1'0000'0007, ieee_text(), wrapped.data());
  plain64.encrypt(0x1'0000'0007, ieee_text(), high.data());
  CHECK(low == wrapped);
  CHECK(low != high);
}

TEST_CASE("sectors_encrypted_in_scattered_memory_equal_those_in_one_piece", "[crypto]") {
  auto cipher = make({}, Buffer(64, 0x17));
  Buffer text(4 * 512);
  std::iota(text.begin(), text.end(), std::uint8_t{3});
  Buffer whole(text.size());
  cipher.encrypt(100, text, whole.data());
  // Pieces that end within sectors, and pieces of whole ones.
  for (const std::size_t first : {std::size_t{100}, std::size_t{512}}) {
    Buffer copy = text;
    const std::array<iovec, 2> pieces = {iovec{copy.data(), first},
                                         {copy.data() + first, copy.size() - first}};
    Buffer out(text.size());
    cipher.encrypt(100, IoVec(pieces), out.data());
    CHECK(out == whole);
    CHECK(copy == text);
    std::copy(whole.begin(), whole.end(), copy.begin());
    cipher.decrypt(100, IoVec(pieces));
    CHECK(copy == text);
  }
}

TEST_CASE("ciphers_that_do_not_go_together_are_refused", "[crypto]") {
  CHECK(SectorCipher::create({.cipher = CipherAlgorithm::kCast5, .mode = CipherMode::kXts}, Buffer(32))
            .error()
            .message == "Unsupported cipher mode xts");
  CHECK(SectorCipher::create({.cipher = CipherAlgorithm::kAes256,
                              .mode = CipherMode::kCbc,
                              .iv = IvGenerator::kEssiv,
                              .iv_hash = HashAlgorithm::kSha1},
                             Buffer(32))
            .error()
            .message == "No AES cipher with key size 20 available");
  CHECK(SectorCipher::create({}, Buffer(63)).error().message == "Cipher key length 63 should be 64");
}

TEST_CASE("legacy_aes_key_is_the_beginning_of_the_password", "[crypto]") {
  auto short_password = legacy_aes_cipher(from_text("abc"));
  auto padded = make({.cipher = CipherAlgorithm::kAes128, .mode = CipherMode::kCbc},
                     from_hex("61626300000000000000000000000000"));
  auto longer = legacy_aes_cipher(from_text("0123456789abcdefgh"));
  auto cut =
      make({.cipher = CipherAlgorithm::kAes128, .mode = CipherMode::kCbc}, from_text("0123456789abcdef"));
  REQUIRE(short_password.has_value());
  REQUIRE(longer.has_value());
  Buffer a(512);
  Buffer b(512);
  short_password->encrypt(9, ieee_text(), a.data());
  padded.encrypt(9, ieee_text(), b.data());
  CHECK(a == b);
  longer->encrypt(9, ieee_text(), a.data());
  cut.encrypt(9, ieee_text(), b.data());
  CHECK(a == b);
}

TEST_CASE("af_merge_equals_another_implementation", "[crypto]") {
  CHECK(merged(HashAlgorithm::kSha1, 32, 5) ==
        from_hex("940172d68ed8b5f266b370c897cf2eb23a6a02320a724776ab881de4043b9ab9"));
  CHECK(merged(HashAlgorithm::kSha256, 48, 7) == from_hex("c518798de8a00850de19280d67dc335a536381bc57fbe3a64f"
                                                          "1b766f4c73762e8a752c023784729f50bf0aa0fdbc6b1d"));
  CHECK(merged(HashAlgorithm::kSha512, 64, 3) ==
        from_hex("b7aa2a81b6a48909b1950f36bc25c64681ce563bd7a511f2e134ab172563b6fb05819da3231795f099476c457d1"
                 "e1e35261819abe2f5c871bf3108cf2707e2f9"));
}

TEST_CASE("af_split_is_undone_by_merge_and_differs_each_time", "[crypto]") {
  const Buffer key(64, 0x42);
  Buffer first(64 * 40);
  Buffer second(64 * 40);
  af_split(HashAlgorithm::kSha256, key, 40, first);
  af_split(HashAlgorithm::kSha256, key, 40, second);
  CHECK(first != second);
  Buffer back(64);
  af_merge(HashAlgorithm::kSha256, first, 40, back);
  CHECK(back == key);
  first[5] ^= 1;
  af_merge(HashAlgorithm::kSha256, first, 40, back);
  CHECK(back != key);
}

TEST_CASE("wiped_memory_holds_nothing", "[crypto]") {
  Secret secret(std::string_view("hunter2"));
  wipe(secret.bytes());
  CHECK(
      std::all_of(secret.bytes().begin(), secret.bytes().end(), [](std::uint8_t byte) { return byte == 0; }));
  CHECK(secret.size() == 7);
}
