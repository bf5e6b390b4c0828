#include "block/crypto/sector_cipher.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.hpp"
#include "block/iovec.hpp"

namespace whistler::crypto {

namespace {

/// The cipher that encrypts sector numbers for essiv: of the same family, its key a digest of the disk's.
Result<Cipher> essiv_cipher(const CipherSpec& spec, ConstBytes key) {
  const auto algorithm = spec.iv_hash.value_or(HashAlgorithm::kSha256);
  Secret digest(digest_bytes(algorithm));
  const auto family = luks_family(spec.cipher);
  const auto found = cipher_of_family(family, digest.size());
  if (family != "aes" && family != "serpent" && family != "twofish") {
    return fail(ErrorCode::kUnsupported,
                fmt::format("Cipher {} not supported with essiv", name_of(spec.cipher)));
  }
  if (!found) {
    const auto shown = family == "aes" ? "AES" : family == "serpent" ? "Serpent" : "Twofish";
    return fail(ErrorCode::kUnsupported,
                fmt::format("No {} cipher with key size {} available", shown, digest.size()));
  }
  hash(algorithm, {key}, digest.bytes());
  return Cipher::create(*found, CipherMode::kEcb, digest.bytes());
}

bool in_whole_sectors(IoVec vec) {
  return std::all_of(vec.begin(), vec.end(),
                     [](const iovec& piece) { return piece.iov_len % kSectorBytes == 0; });
}

std::uint8_t* base_of(const iovec& piece) { return static_cast<std::uint8_t*>(piece.iov_base); }

}  // namespace

Result<SectorCipher> SectorCipher::create(const CipherSpec& spec, ConstBytes key) {
  auto cipher = Cipher::create(spec.cipher, spec.mode, key);
  if (!cipher) {
    return std::unexpected(cipher.error());
  }
  SectorCipher made(spec, std::move(*cipher));
  if (spec.iv == IvGenerator::kEssiv && spec.mode != CipherMode::kEcb) {
    auto essiv = essiv_cipher(spec, key);
    if (!essiv) {
      return std::unexpected(essiv.error());
    }
    made.essiv_ = std::move(*essiv);
  }
  return made;
}

ConstBytes SectorCipher::iv_of(std::uint64_t sector) {
  if (spec_.mode == CipherMode::kEcb) {
    return {};
  }
  const auto number = spec_.iv == IvGenerator::kPlain ? sector & 0xffff'ffff : sector;
  iv_ = {};
  store_le<std::uint64_t>(iv_.data(), number);
  const auto iv = Bytes(iv_).first(block_bytes(spec_.cipher));
  if (essiv_) {
    essiv_->encrypt({}, iv, iv.data());
  }
  return iv;
}

void SectorCipher::encrypt(std::uint64_t sector, ConstBytes from, std::uint8_t* to) {
  for (std::size_t at = 0; at < from.size(); at += kSectorBytes) {
    cipher_.encrypt(iv_of(sector++), from.subspan(at, kSectorBytes), to + at);
  }
}

void SectorCipher::decrypt(std::uint64_t sector, ConstBytes from, std::uint8_t* to) {
  for (std::size_t at = 0; at < from.size(); at += kSectorBytes) {
    cipher_.decrypt(iv_of(sector++), from.subspan(at, kSectorBytes), to + at);
  }
}

void SectorCipher::encrypt(std::uint64_t sector, IoVec from, std::uint8_t* to) {
  if (!in_whole_sectors(from)) {
    const Bytes whole(to, static_cast<std::size_t>(iovec_bytes(from)));
    copy_from_iovec(whole, from, 0);
    encrypt(sector, whole, to);
    return;
  }
  for (const auto& piece : from) {
    encrypt(sector, ConstBytes(base_of(piece), piece.iov_len), to);
    sector += piece.iov_len / kSectorBytes;
    to += piece.iov_len;
  }
}

void SectorCipher::decrypt(std::uint64_t sector, IoVec data) {
  if (!in_whole_sectors(data)) {
    std::vector<std::uint8_t> whole(static_cast<std::size_t>(iovec_bytes(data)));
    copy_from_iovec(whole, data, 0);
    decrypt(sector, whole, whole.data());
    copy_to_iovec(data, 0, whole);
    return;
  }
  for (const auto& piece : data) {
    decrypt(sector, ConstBytes(base_of(piece), piece.iov_len), base_of(piece));
    sector += piece.iov_len / kSectorBytes;
  }
}

Result<SectorCipher> legacy_aes_cipher(ConstBytes password) {
  Secret key(key_bytes(CipherAlgorithm::kAes128));
  std::copy_n(password.begin(), std::min(password.size(), key.size()), key.data());
  return SectorCipher::create(
      {.cipher = CipherAlgorithm::kAes128, .mode = CipherMode::kCbc, .iv = IvGenerator::kPlain64},
      key.bytes());
}

}  // namespace whistler::crypto
