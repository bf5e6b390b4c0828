#include "tools/nbd/objects.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <fstream>
#include <iterator>

#include "tools/nbd/options.hpp"

namespace whistler::tools::nbd {

using whistler::nbd::TlsCredentials;
using whistler::nbd::TlsOptions;
using whistler::nbd::TlsSide;

namespace {

std::string value_of(const std::map<std::string, std::string>& properties, const std::string& key) {
  const auto found = properties.find(key);
  return found == properties.end() ? std::string() : found->second;
}

}  // namespace

Result<void> Objects::add(const std::string& text) {
  const auto parts = split_commas(text);
  auto type = parts.front();
  if (type.starts_with("qom-type=")) {
    type.erase(0, 9);
  }
  Properties properties;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const auto equals = parts[i].find('=');
    properties[parts[i].substr(0, equals)] = equals == std::string::npos ? "on" : parts[i].substr(equals + 1);
  }
  const auto id = value_of(properties, "id");
  const bool tls = type == "tls-creds-x509" || type == "tls-creds-psk" || type == "tls-creds-anon";
  if (type.starts_with("authz-") && type != "authz-simple") {
    return fail(ErrorCode::kUnsupported,
                fmt::format("object type '{}' is not offered here; authz-simple is", type));
  }
  if (!tls && type != "secret" && type != "authz-simple") {
    return fail(ErrorCode::kInvalid, fmt::format("Parameter 'qom-type' does not accept value '{}'", type));
  }
  if (id.empty()) {
    return fail(ErrorCode::kInvalid, "Parameter 'id' is missing");
  }
  if (credentials_.contains(id) || identities_.contains(id) || secrets_.contains(id)) {
    return fail(ErrorCode::kExists, fmt::format("attempt to add duplicate property '{}' to object (type "
                                                "'container')",
                                                id));
  }
  if (type == "secret") {
    return add_secret(id, properties);
  }
  if (type == "authz-simple") {
    identities_[id] = value_of(properties, "identity");
    return {};
  }
  return add_credentials(id, type, properties);
}

Result<void> Objects::add_secret(const std::string& id, const Properties& properties) {
  const bool has_data = properties.contains("data");
  const bool has_file = properties.contains("file");
  if (has_data && has_file) {
    return fail(ErrorCode::kInvalid, "'file' and 'data' are mutually exclusive");
  }
  if (!has_data && !has_file) {
    return fail(ErrorCode::kInvalid, "Either 'file' or 'data' must be provided");
  }
  if (has_data) {
    secrets_[id] = properties.at("data");
    return {};
  }
  std::ifstream stream(properties.at("file"), std::ios::binary);
  if (!stream) {
    return fail(ErrorCode::kNotFound,
                fmt::format("Unable to read {}: Failed to open file \u201c{}\u201d: No such "
                            "file or directory",
                            properties.at("file"), properties.at("file")));
  }
  secrets_[id] = std::string(std::istreambuf_iterator<char>(stream), {});
  return {};
}

Result<void> Objects::add_credentials(const std::string& id, const std::string& type,
                                      const Properties& properties) {
  if (type == "tls-creds-anon") {
    return fail(ErrorCode::kUnsupported,
                "object type 'tls-creds-anon' is not offered here: it would not "
                "tell who the other side is");
  }
  TlsOptions options;
  options.kind = type == "tls-creds-psk" ? TlsOptions::Kind::kPsk : TlsOptions::Kind::kX509;
  const auto endpoint = value_of(properties, "endpoint");
  if (!endpoint.empty() && endpoint != "server" && endpoint != "client") {
    return fail(ErrorCode::kInvalid,
                fmt::format("Parameter 'endpoint' does not accept value '{}'", endpoint));
  }
  options.side = endpoint == "server" ? TlsSide::kServer : TlsSide::kClient;
  options.folder = value_of(properties, "dir");
  const auto verify = value_of(properties, "verify-peer");
  options.verify_peer = verify != "off" && verify != "no" && verify != "false";
  options.user = value_of(properties, "username");
  options.priority = value_of(properties, "priority");
  if (const auto password = value_of(properties, "passwordid"); !password.empty()) {
    const auto secret = secrets_.find(password);
    if (secret == secrets_.end()) {
      return fail(ErrorCode::kNotFound, fmt::format("No secret with id '{}'", password));
    }
    options.key_password = secret->second;
  }
  auto loaded = TlsCredentials::load(options);
  if (!loaded) {
    return std::unexpected(loaded.error());
  }
  credentials_[id] = std::move(*loaded);
  return {};
}

Result<std::shared_ptr<const TlsCredentials>> Objects::credentials(const std::string& id,
                                                                   TlsSide side) const {
  const auto found = credentials_.find(id);
  if (found == credentials_.end()) {
    const bool other = secrets_.contains(id) || identities_.contains(id);
    return fail(ErrorCode::kNotFound, other ? fmt::format("Object with id '{}' is not TLS credentials", id)
                                            : fmt::format("No TLS credentials with id '{}'", id));
  }
  if (found->second->options().side != side) {
    return fail(ErrorCode::kInvalid, fmt::format("Expecting TLS credentials with a {} endpoint",
                                                 side == TlsSide::kServer ? "server" : "client"));
  }
  return found->second;
}

Result<std::string> Objects::identity(const std::string& id) const {
  const auto found = identities_.find(id);
  if (found == identities_.end()) {
    return fail(ErrorCode::kNotFound, fmt::format("there is no authz object with id '{}'", id));
  }
  return found->second;
}

}  // namespace whistler::tools::nbd
