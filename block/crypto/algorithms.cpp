#include "block/crypto/algorithms.hpp"

#include <array>

namespace whistler::crypto {

namespace {

struct CipherFacts {
  std::string_view name;
  std::string_view family;  ///< in a LUKS header
  std::size_t key;
  std::size_t block;
};
constexpr std::array<CipherFacts, 12> kCiphers = {{
    {"aes-128", "aes", 16, 16},
    {"aes-192", "aes", 24, 16},
    {"aes-256", "aes", 32, 16},
    {"des", "", 8, 8},
    {"3des", "", 24, 8},
    {"cast5-128", "cast5", 16, 8},
    {"serpent-128", "serpent", 16, 16},
    {"serpent-192", "serpent", 24, 16},
    {"serpent-256", "serpent", 32, 16},
    {"twofish-128", "twofish", 16, 16},
    {"twofish-192", "twofish", 24, 16},
    {"twofish-256", "twofish", 32, 16},
}};
constexpr std::array<std::string_view, 4> kModes = {"ecb", "cbc", "xts", "ctr"};
constexpr std::array<std::string_view, 3> kGenerators = {"plain", "plain64", "essiv"};

struct HashFacts {
  std::string_view name;
  std::size_t bytes;
};
constexpr std::array<HashFacts, 7> kHashes = {{
    {"md5", 16},
    {"sha1", 20},
    {"sha224", 28},
    {"sha256", 32},
    {"sha384", 48},
    {"sha512", 64},
    {"ripemd160", 20},
}};

constexpr const CipherFacts& facts(CipherAlgorithm algorithm) {
  return kCiphers[static_cast<std::size_t>(algorithm)];
}

/// The enumerator whose place in `list` satisfies `wanted`.
template <typename Enum, typename List, typename Wanted>
std::optional<Enum> find(const List& list, Wanted wanted) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (wanted(list[i])) {
      return static_cast<Enum>(i);
    }
  }
  return std::nullopt;
}

}  // namespace

std::string_view name_of(CipherAlgorithm algorithm) { return facts(algorithm).name; }
std::string_view name_of(CipherMode mode) { return kModes[static_cast<std::size_t>(mode)]; }
std::string_view name_of(IvGenerator generator) { return kGenerators[static_cast<std::size_t>(generator)]; }
std::string_view name_of(HashAlgorithm algorithm) {
  return kHashes[static_cast<std::size_t>(algorithm)].name;
}

std::optional<CipherAlgorithm> cipher_named(std::string_view name) {
  return find<CipherAlgorithm>(kCiphers, [=](const CipherFacts& cipher) { return cipher.name == name; });
}
std::optional<CipherMode> cipher_mode_named(std::string_view name) {
  return find<CipherMode>(kModes, [=](std::string_view mode) { return mode == name; });
}
std::optional<IvGenerator> iv_generator_named(std::string_view name) {
  return find<IvGenerator>(kGenerators, [=](std::string_view generator) { return generator == name; });
}
std::optional<HashAlgorithm> hash_named(std::string_view name) {
  return find<HashAlgorithm>(kHashes, [=](const HashFacts& hash) { return hash.name == name; });
}

std::string_view luks_family(CipherAlgorithm algorithm) { return facts(algorithm).family; }
std::optional<CipherAlgorithm> cipher_of_family(std::string_view family, std::size_t key_bytes) {
  return find<CipherAlgorithm>(kCiphers, [=](const CipherFacts& cipher) {
    return !family.empty() && cipher.family == family && cipher.key == key_bytes;
  });
}

std::size_t key_bytes(CipherAlgorithm algorithm) { return facts(algorithm).key; }
std::size_t block_bytes(CipherAlgorithm algorithm) { return facts(algorithm).block; }
std::size_t digest_bytes(HashAlgorithm algorithm) {
  return kHashes[static_cast<std::size_t>(algorithm)].bytes;
}

}  // namespace whistler::crypto
