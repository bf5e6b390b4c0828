#include <catch2/catch.hpp>

#include "block/crypto/key_options.hpp"

using namespace whistler;
using namespace whistler::crypto;

namespace {

OptionLookup lookup(std::map<std::string, std::string> options) {
  return [options = std::move(options)](const std::string& name) -> std::optional<std::string> {
    const auto found = options.find(name);
    return found == options.end() ? std::nullopt : std::optional(found->second);
  };
}

const Secrets kSecrets = {{"s", "hunter"}, {"bad", "\xff"}, {"long", "\xc0\x80"}, {"fine", "\u00fc\u20ac"}};

}  // namespace

TEST_CASE("luks_options_default_to_qemus", "[crypto]") {
  const auto options = parse_luks_options(lookup({}));
  REQUIRE(options.has_value());
  CHECK(options->cipher == CipherSpec{});
  CHECK(options->hash == HashAlgorithm::kSha256);
  CHECK(options->iteration_milliseconds == 2000);
}

TEST_CASE("luks_options_are_read_and_unknown_values_refused", "[crypto]") {
  const auto options = parse_luks_options(lookup({{"cipher-alg", "serpent-128"},
                                                  {"cipher-mode", "cbc"},
                                                  {"ivgen-alg", "essiv"},
                                                  {"hash-alg", "sha1"},
                                                  {"iter-time", "10"}}));
  REQUIRE(options.has_value());
  CHECK(options->cipher == CipherSpec{.cipher = CipherAlgorithm::kSerpent128,
                                      .mode = CipherMode::kCbc,
                                      .iv = IvGenerator::kEssiv,
                                      .iv_hash = HashAlgorithm::kSha256});
  CHECK(options->hash == HashAlgorithm::kSha1);
  CHECK(options->iteration_milliseconds == 10);
  CHECK(parse_luks_options(lookup({{"cipher-mode", "foo"}})).error().message ==
        "Parameter 'cipher-mode' does not accept value 'foo'");
  CHECK(parse_luks_options(lookup({{"iter-time", "-1"}})).error().message ==
        "Parameter 'iter-time' expects a number");
}

TEST_CASE("secrets_are_found_by_id_and_must_be_text", "[crypto]") {
  CHECK(secret_named(&kSecrets, "s")->size() == 6);
  CHECK(secret_named(&kSecrets, "fine").has_value());
  CHECK(secret_named(&kSecrets, "t").error().message == "No secret with id 't'");
  CHECK(secret_named(nullptr, "s").error().message == "No secret with id 's'");
  CHECK(secret_named(&kSecrets, "bad").error().message == "Data from secret bad is not valid UTF-8");
  CHECK(secret_named(&kSecrets, "long").error().message == "Data from secret long is not valid UTF-8");
  CHECK(key_secret(lookup({}), &kSecrets, "encrypt.").error().message ==
        "Parameter 'encrypt.key-secret' is required for cipher");
}

TEST_CASE("luks_amend_options_are_read", "[crypto]") {
  const auto change =
      parse_luks_amend(lookup({{"state", "active"}, {"new-secret", "s"}, {"keyslot", "3"}}), &kSecrets, true);
  REQUIRE(change.has_value());
  CHECK(change->activate);
  CHECK(change->new_password->size() == 6);
  CHECK(change->slot == 3);
  CHECK(change->force);
  CHECK(parse_luks_amend(lookup({}), &kSecrets, false).error().message == "Parameter 'state' is missing");
  CHECK(parse_luks_amend(lookup({{"state", "inactive"}, {"old-secret", "x"}}), &kSecrets, false)
            .error()
            .message == "No secret with id 'x'");
}
