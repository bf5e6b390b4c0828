// TLS credentials as --object describes them.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "block/nbd/tls.hpp"
#include "block/node_options.hpp"

namespace whistler::tools {

/// Whether objects of that type are TLS credentials, offered here or not.
[[nodiscard]] bool is_credentials(const std::string& type);

/// Loads what "tls-creds-x509" and "tls-creds-psk" name. `passwords`: the secrets defined so far, for the key
/// of an encrypted key file. Errors are QEMU's.
[[nodiscard]] Result<std::shared_ptr<const whistler::nbd::TlsCredentials>> load_credentials(
    const std::string& type, const Options& options, const std::map<std::string, std::string>& passwords);

}  // namespace whistler::tools
