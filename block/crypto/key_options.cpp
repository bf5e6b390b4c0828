#include "block/crypto/key_options.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>

namespace whistler::crypto {

namespace {

/// Whether `text` is UTF-8: no bytes out of place, nothing longer than it need be, no surrogates.
bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto first = static_cast<std::uint8_t>(text[i]);
    const std::size_t more = first < 0x80       ? 0
                             : first >> 5 == 6  ? 1
                             : first >> 4 == 14 ? 2
                             : first >> 3 == 30 ? 3
                                                : 4;
    if (first == 0 || more == 4 || i + more >= text.size()) {
      return false;
    }
    std::uint32_t value = more == 0 ? first : first & (0x3fU >> more);
    for (std::size_t k = 1; k <= more; ++k) {
      const auto next = static_cast<std::uint8_t>(text[i + k]);
      if (next >> 6 != 2) {
        return false;
      }
      value = value << 6 | (next & 0x3fU);
    }
    static constexpr std::array<std::uint32_t, 4> kLeast = {0, 0x80, 0x800, 0x10000};
    if (value < kLeast[more] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
      return false;
    }
    i += more + 1;
  }
  return true;
}

/// The value with the name given for `option`; `otherwise` without one.
template <typename Value, typename Named>
Result<Value> named(const OptionLookup& option, const std::string& name, Named find, Value otherwise) {
  const auto given = option(name);
  if (!given) {
    return otherwise;
  }
  const auto value = find(*given);
  if (!value) {
    return fail(ErrorCode::kInvalid, fmt::format("Parameter '{}' does not accept value '{}'", name, *given));
  }
  return *value;
}

template <typename Value>
const Error* error_of(const Result<Value>& result) {
  return result ? nullptr : &result.error();
}

Result<std::optional<std::uint64_t>> number(const OptionLookup& option, const std::string& name) {
  const auto given = option(name);
  if (!given) {
    return std::nullopt;
  }
  std::uint64_t value = 0;
  const auto* end = given->data() + given->size();
  const auto parsed = std::from_chars(given->data(), end, value);
  if (given->empty() || parsed.ec != std::errc{} || parsed.ptr != end) {
    return fail(ErrorCode::kInvalid, fmt::format("Parameter '{}' expects a number", name));
  }
  return value;
}

Result<std::optional<Secret>> optional_secret(const OptionLookup& option, const std::string& name,
                                              const Secrets* secrets) {
  const auto id = option(name);
  if (!id) {
    return std::nullopt;
  }
  auto secret = secret_named(secrets, *id);
  if (!secret) {
    return std::unexpected(secret.error());
  }
  return std::move(*secret);
}

}  // namespace

Result<Secret> secret_named(const Secrets* secrets, const std::string& id) {
  const auto found = secrets == nullptr ? Secrets::const_iterator{} : secrets->find(id);
  if (secrets == nullptr || found == secrets->end()) {
    return fail(ErrorCode::kNotFound, fmt::format("No secret with id '{}'", id));
  }
  if (!is_utf8(found->second)) {
    return fail(ErrorCode::kInvalid, fmt::format("Data from secret {} is not valid UTF-8", id));
  }
  return Secret(std::string_view(found->second));
}

Result<Secret> key_secret(const OptionLookup& option, const Secrets* secrets, const std::string& prefix) {
  const auto id = option("key-secret");
  if (!id) {
    return fail(ErrorCode::kInvalid, fmt::format("Parameter '{}key-secret' is required for cipher", prefix));
  }
  return secret_named(secrets, *id);
}

Result<LuksOptions> parse_luks_options(const OptionLookup& option) {
  LuksOptions options;
  const auto cipher = named(option, "cipher-alg", cipher_named, options.cipher.cipher);
  const auto mode = named(option, "cipher-mode", cipher_mode_named, options.cipher.mode);
  const auto generator = named(option, "ivgen-alg", iv_generator_named, options.cipher.iv);
  const auto iv_hash = named(option, "ivgen-hash-alg", hash_named, HashAlgorithm::kSha256);
  const auto hash = named(option, "hash-alg", hash_named, options.hash);
  const auto time = number(option, "iter-time");
  for (const auto* error : {error_of(cipher), error_of(mode), error_of(generator), error_of(iv_hash),
                            error_of(hash), error_of(time)}) {
    if (error != nullptr) {
      return std::unexpected(*error);
    }
  }
  options.cipher = {.cipher = *cipher, .mode = *mode, .iv = *generator};
  if (option("ivgen-hash-alg") || *generator == IvGenerator::kEssiv) {
    options.cipher.iv_hash = *iv_hash;
  }
  options.hash = *hash;
  options.iteration_milliseconds = time->value_or(options.iteration_milliseconds);
  return options;
}

Result<LuksAmend> parse_luks_amend(const OptionLookup& option, const Secrets* secrets, bool force) {
  const auto state = option("state");
  if (!state) {
    return fail(ErrorCode::kInvalid, "Parameter 'state' is missing");
  }
  if (*state != "active" && *state != "inactive") {
    return fail(ErrorCode::kInvalid, fmt::format("Parameter 'state' does not accept value '{}'", *state));
  }
  const auto slot = number(option, "keyslot");
  const auto time = number(option, "iter-time");
  auto new_password = optional_secret(option, "new-secret", secrets);
  auto old_password = optional_secret(option, "old-secret", secrets);
  for (const auto* error : {error_of(slot), error_of(time), error_of(new_password), error_of(old_password)}) {
    if (error != nullptr) {
      return std::unexpected(*error);
    }
  }
  return LuksAmend{.activate = *state == "active",
                   .new_password = std::move(*new_password),
                   .old_password = std::move(*old_password),
                   .slot = *slot,
                   .iteration_milliseconds = *time,
                   .force = force};
}

nlohmann::json describe(const LuksHeader& header) {
  auto slots = nlohmann::json::array();
  for (const auto& slot : header.slots) {
    nlohmann::json shown = {{"active", slot.active}, {"key-offset", slot.offset}};
    if (slot.active) {
      shown["iters"] = slot.iterations;
      shown["stripes"] = kLuksStripes;
    }
    slots.push_back(std::move(shown));
  }
  nlohmann::json shown = {{"cipher-alg", name_of(header.cipher.cipher)},
                          {"cipher-mode", name_of(header.cipher.mode)},
                          {"ivgen-alg", name_of(header.cipher.iv)},
                          {"hash-alg", name_of(header.hash)},
                          {"payload-offset", header.payload_offset},
                          {"master-key-iters", header.iterations},
                          {"uuid", header.uuid},
                          {"slots", std::move(slots)}};
  if (header.cipher.iv == IvGenerator::kEssiv && header.cipher.iv_hash) {
    shown["ivgen-hash-alg"] = name_of(*header.cipher.iv_hash);
  }
  return shown;
}

}  // namespace whistler::crypto
