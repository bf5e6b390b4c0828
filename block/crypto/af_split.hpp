// LUKS's anti-forensic splitter: a key spread over so many stripes that losing any part of them loses it all.
#pragma once

#include "block/crypto/primitives.hpp"

namespace whistler::crypto {

/// Fills `split`, `stripes` times the length of `key`, with random stripes and a last one that completes
/// them.
void af_split(HashAlgorithm algorithm, ConstBytes key, std::uint32_t stripes, Bytes split);

/// The way back.
void af_merge(HashAlgorithm algorithm, ConstBytes split, std::uint32_t stripes, Bytes key);

}  // namespace whistler::crypto
