#include "tools/objects.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include "block/crypto/key_options.hpp"
#include "block/crypto/primitives.hpp"
#include "block/nbd/node_driver.hpp"
#include "block/node_options.hpp"
#include "tools/tls_objects.hpp"

namespace whistler::tools {

namespace {

/// Wiped when the program ends.
struct Registry {
  std::map<std::string, std::string> secrets;
  std::map<std::string, std::shared_ptr<const whistler::nbd::TlsCredentials>> credentials;
  std::map<std::string, std::string> identities;

  [[nodiscard]] bool has(const std::string& id) const {
    return secrets.contains(id) || credentials.contains(id) || identities.contains(id);
  }
  ~Registry() {
    for (auto& [id, value] : secrets) {
      crypto::wipe({reinterpret_cast<std::uint8_t*>(value.data()), value.size()});
    }
  }
};
Registry& registry() {
  static Registry objects;
  return objects;
}

std::unexpected<Error> invalid(std::string why) { return fail(ErrorCode::kInvalid, std::move(why)); }

bool is_identifier(const std::string& id) {
  const auto is = [](char c, int (*test)(int)) { return test(static_cast<unsigned char>(c)) != 0; };
  return !id.empty() && is(id[0], std::isalpha) && std::all_of(id.begin(), id.end(), [&](char c) {
    return is(c, std::isalnum) || c == '-' || c == '.' || c == '_';
  });
}

/// The value of a base64 digit; 64 for anything else.
unsigned digit_of(char c) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto at = kDigits.find(c);
  return at == std::string_view::npos ? 64 : static_cast<unsigned>(at);
}

Result<std::string> decode_base64(const std::string& text) {
  std::string decoded;
  std::uint32_t bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    if (c == '\0') {
      return invalid("Base64 data contains embedded NUL characters");
    }
    if (c == '=' || c == '\n') {
      continue;
    }
    const auto digit = digit_of(c);
    if (digit == 64) {
      return invalid("Base64 data contains invalid characters");
    }
    bits = bits << 6 | digit;
    count += 6;
    if (count >= 8) {
      count -= 8;
      decoded.push_back(static_cast<char>(bits >> count & 0xff));
    }
  }
  return decoded;
}

Result<std::string> read_secret_file(const std::string& path) {
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(stream), {});
  if (!stream.is_open() || stream.bad()) {
    return invalid(
        fmt::format("Unable to read {0}: Failed to open file “{0}”: {1}", path, std::strerror(errno)));
  }
  return text;
}

crypto::ConstBytes bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// A secret that is itself encrypted, with another one: AES-256-CBC, padded to whole blocks.
Result<std::string> decrypt(const std::string& text, const std::string& key_id,
                            const std::optional<std::string>& iv) {
  constexpr std::size_t kBlock = 16;
  const auto key = registry().secrets.find(key_id);
  if (key == registry().secrets.end()) {
    return invalid(fmt::format("No secret with id '{}'", key_id));
  }
  if (key->second.size() != crypto::key_bytes(crypto::CipherAlgorithm::kAes256)) {
    return invalid("Key should be 32 bytes in length");
  }
  if (!iv) {
    return invalid("IV is required to decrypt secret");
  }
  const auto start = decode_base64(*iv);
  if (!start) {
    return start;
  }
  if (start->size() != kBlock) {
    return invalid(fmt::format("IV should be 16 bytes in length not {}", start->size()));
  }
  if (text.empty() || text.size() % kBlock != 0) {
    return invalid(fmt::format("Length {} must be a multiple of block size {}", text.size(), kBlock));
  }
  auto cipher = crypto::Cipher::create(crypto::CipherAlgorithm::kAes256, crypto::CipherMode::kCbc,
                                       bytes_of(key->second));
  if (!cipher) {
    return std::unexpected(cipher.error());
  }
  std::string plain(text.size(), '\0');
  cipher->decrypt(bytes_of(*start), bytes_of(text), reinterpret_cast<std::uint8_t*>(plain.data()));
  const auto padding = static_cast<unsigned char>(plain.back());
  if (padding == 0 || padding > kBlock) {
    return invalid(fmt::format("Incorrect number of padding bytes ({}) found on decrypted data", padding));
  }
  plain.resize(plain.size() - padding);
  return plain;
}

Result<std::string> value_of(const Options& options) {
  const auto data = option_text(options, "data");
  const auto file = option_text(options, "file");
  const auto format = option_text(options, "format").value_or("raw");
  if (format != "raw" && format != "base64") {
    return invalid(fmt::format("Parameter 'format' does not accept value '{}'", format));
  }
  if (data && file) {
    return invalid("'file' and 'data' are mutually exclusive");
  }
  if (!data && !file) {
    return invalid("Either 'file' or 'data' must be provided");
  }
  auto value = file ? read_secret_file(*file) : Result<std::string>(*data);
  if (value && format == "base64") {
    value = decode_base64(*value);
  }
  const auto key_id = option_text(options, "keyid");
  return value && key_id ? decrypt(*value, *key_id, option_text(options, "iv")) : value;
}

/// The id of a new object.
Result<std::string> new_id(const Options& options) {
  const auto id = option_text(options, "id");
  if (!id) {
    return invalid("Parameter 'id' is missing");
  }
  if (!is_identifier(*id)) {
    return invalid(
        "Parameter 'id' expects an identifier\n"
        "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
  }
  if (registry().has(*id)) {
    return invalid(fmt::format("attempt to add duplicate property '{}' to object (type 'container')", *id));
  }
  return *id;
}

Result<void> define_secret(const std::string& id, const Options& options) {
  for (const auto& [key, unused] : options.items()) {
    static constexpr std::array<std::string_view, 7> kKeys = {"qom-type", "id",    "data", "file",
                                                              "format",   "keyid", "iv"};
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) {
      return invalid(fmt::format("Parameter '{}' is unexpected", key));
    }
  }
  auto value = value_of(options);
  if (!value) {
    return std::unexpected(value.error());
  }
  registry().secrets.emplace(id, std::move(*value));
  return {};
}

Result<void> define_credentials(const std::string& id, const std::string& type, const Options& options) {
  auto loaded = load_credentials(type, options, registry().secrets);
  if (!loaded) {
    return std::unexpected(loaded.error());
  }
  whistler::nbd::register_credentials(id, *loaded);
  registry().credentials.emplace(id, std::move(*loaded));
  return {};
}

}  // namespace

const std::map<std::string, std::string>& secrets() { return registry().secrets; }

Result<std::shared_ptr<const whistler::nbd::TlsCredentials>> find_credentials(const std::string& id,
                                                                              whistler::nbd::TlsSide side) {
  const auto found = registry().credentials.find(id);
  if (found == registry().credentials.end()) {
    return fail(ErrorCode::kNotFound, registry().has(id)
                                          ? fmt::format("Object with id '{}' is not TLS credentials", id)
                                          : fmt::format("No TLS credentials with id '{}'", id));
  }
  if (found->second->options().side != side) {
    return invalid(fmt::format("Expecting TLS credentials with a {} endpoint",
                               side == whistler::nbd::TlsSide::kServer ? "server" : "client"));
  }
  return found->second;
}

Result<std::string> find_identity(const std::string& id) {
  const auto found = registry().identities.find(id);
  if (found == registry().identities.end()) {
    return fail(ErrorCode::kNotFound, fmt::format("there is no authz object with id '{}'", id));
  }
  return found->second;
}

Result<void> define_object(const std::string& text) {
  const auto options =
      text.starts_with('{') ? parse_json_name("json:" + text) : parse_dotted_options(text, "qom-type");
  if (!options) {
    return std::unexpected(options.error());
  }
  const auto type = option_text(*options, "qom-type");
  if (!type || type->empty()) {
    return invalid("Parameter 'qom-type' is missing");
  }
  if (type->starts_with("authz-") && *type != "authz-simple") {
    return fail(ErrorCode::kUnsupported,
                fmt::format("object type '{}' is not offered here; authz-simple is", *type));
  }
  if (*type != "secret" && *type != "authz-simple" && !is_credentials(*type)) {
    return invalid(fmt::format("Parameter 'qom-type' does not accept value '{}'", *type));
  }
  const auto id = new_id(*options);
  if (!id) {
    return std::unexpected(id.error());
  }
  if (*type == "secret") {
    return define_secret(*id, *options);
  }
  if (*type == "authz-simple") {
    registry().identities.emplace(*id, option_text(*options, "identity").value_or(""));
    return {};
  }
  return define_credentials(*id, *type, *options);
}

}  // namespace whistler::tools
