#include "block/crypto/secret.hpp"

#include <cstring>

namespace whistler::crypto {

void wipe(std::span<std::uint8_t> bytes) {
  if (!bytes.empty()) {
    ::explicit_bzero(bytes.data(), bytes.size());
  }
}

}  // namespace whistler::crypto
