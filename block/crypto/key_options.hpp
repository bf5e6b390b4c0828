// Encryption as the tools' options and output have it: names to values, secrets by id, a header for `info`.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "block/crypto/luks.hpp"

namespace whistler::crypto {

/// The values of --object secret, by id.
using Secrets = std::map<std::string, std::string>;

/// The value of an option if it was given; without the prefix "encrypt.".
using OptionLookup = std::function<std::optional<std::string>(const std::string& name)>;

/// QEMU's messages if there is none of that id, or it is no text.
[[nodiscard]] Result<Secret> secret_named(const Secrets* secrets, const std::string& id);

/// The password that the option "key-secret" names. `prefix` ("encrypt." or "") is for the message if it is
/// missing.
[[nodiscard]] Result<Secret> key_secret(const OptionLookup& option, const Secrets* secrets,
                                        const std::string& prefix);

/// cipher-alg, cipher-mode, ivgen-alg, ivgen-hash-alg, hash-alg, iter-time for a new volume.
[[nodiscard]] Result<LuksOptions> parse_luks_options(const OptionLookup& option);

/// state, new-secret, old-secret, keyslot, iter-time for amend.
[[nodiscard]] Result<LuksAmend> parse_luks_amend(const OptionLookup& option, const Secrets* secrets,
                                                 bool force);

/// What `info` shows of a volume, with QEMU's keys.
[[nodiscard]] nlohmann::json describe(const LuksHeader& header);

}  // namespace whistler::crypto
