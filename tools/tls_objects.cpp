#include "tools/tls_objects.hpp"

#include <fmt/format.h>

namespace whistler::tools {

bool is_credentials(const std::string& type) {
  return type == "tls-creds-x509" || type == "tls-creds-psk" || type == "tls-creds-anon";
}

Result<std::shared_ptr<const whistler::nbd::TlsCredentials>> load_credentials(
    const std::string& type, const Options& options, const std::map<std::string, std::string>& passwords) {
  if (type == "tls-creds-anon") {
    return fail(ErrorCode::kUnsupported,
                "object type 'tls-creds-anon' is not offered here: it would not tell who the other side is");
  }
  const auto text = [&](std::string_view key) { return option_text(options, key).value_or(""); };
  whistler::nbd::TlsOptions wanted;
  wanted.kind = type == "tls-creds-psk" ? whistler::nbd::TlsOptions::Kind::kPsk
                                        : whistler::nbd::TlsOptions::Kind::kX509;
  const auto endpoint = text("endpoint");
  if (!endpoint.empty() && endpoint != "server" && endpoint != "client") {
    return fail(ErrorCode::kInvalid,
                fmt::format("Parameter 'endpoint' does not accept value '{}'", endpoint));
  }
  wanted.side = endpoint == "server" ? whistler::nbd::TlsSide::kServer : whistler::nbd::TlsSide::kClient;
  wanted.folder = text("dir");
  const auto verify = option_flag(options, "verify-peer", true);
  if (!verify) {
    return std::unexpected(verify.error());
  }
  wanted.verify_peer = *verify;
  wanted.user = text("username");
  wanted.priority = text("priority");
  if (const auto password = text("passwordid"); !password.empty()) {
    const auto secret = passwords.find(password);
    if (secret == passwords.end()) {
      return fail(ErrorCode::kNotFound, fmt::format("No secret with id '{}'", password));
    }
    wanted.key_password = secret->second;
  }
  auto loaded = whistler::nbd::TlsCredentials::load(wanted);
  if (!loaded) {
    return std::unexpected(loaded.error());
  }
  return std::move(*loaded);
}

}  // namespace whistler::tools
