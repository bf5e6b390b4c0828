#include "block/crypto/af_split.hpp"

#include <algorithm>

#include "base/bytes.hpp"

namespace whistler::crypto {

namespace {

/// Replaces each digest-sized piece of `block` by the hash of its number and itself; the last one may be
/// shorter.
void diffuse(HashAlgorithm algorithm, Bytes block) {
  Secret digest(digest_bytes(algorithm));
  std::uint32_t number = 0;
  for (std::size_t at = 0; at < block.size(); at += digest.size(), ++number) {
    const auto piece = block.subspan(at, std::min(digest.size(), block.size() - at));
    const Be<std::uint32_t> stored(number);
    hash(algorithm, {{reinterpret_cast<const std::uint8_t*>(&stored), sizeof stored}, piece}, digest.bytes());
    std::copy_n(digest.bytes().begin(), piece.size(), piece.begin());
  }
}

void xor_into(Bytes to, ConstBytes from) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    to[i] = static_cast<std::uint8_t>(to[i] ^ from[i]);
  }
}

/// Runs through all stripes but the last; what is left is what the last one must be combined with.
Secret combine(HashAlgorithm algorithm, ConstBytes split, std::uint32_t stripes, std::size_t length) {
  Secret block(length);
  for (std::uint32_t stripe = 0; stripe + 1 < stripes; ++stripe) {
    xor_into(block.bytes(), split.subspan(stripe * length, length));
    diffuse(algorithm, block.bytes());
  }
  return block;
}

}  // namespace

void af_split(HashAlgorithm algorithm, ConstBytes key, std::uint32_t stripes, Bytes split) {
  const auto length = key.size();
  fill_random(split.first((stripes - 1) * length));
  const auto block = combine(algorithm, split, stripes, length);
  const auto last = split.subspan((stripes - 1) * length, length);
  std::copy(key.begin(), key.end(), last.begin());
  xor_into(last, block.bytes());
}

void af_merge(HashAlgorithm algorithm, ConstBytes split, std::uint32_t stripes, Bytes key) {
  const auto length = key.size();
  const auto block = combine(algorithm, split, stripes, length);
  const auto last = split.subspan((stripes - 1) * length, length);
  std::copy(last.begin(), last.end(), key.begin());
  xor_into(key, block.bytes());
}

}  // namespace whistler::crypto
