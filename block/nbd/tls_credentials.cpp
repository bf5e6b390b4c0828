#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "block/nbd/gnutls_library.hpp"
#include "block/nbd/tls.hpp"
#include "block/nbd/tls_handles.hpp"

namespace whistler::nbd {

namespace {

std::unexpected<Error> tls_error(int code, const std::string& what) {
  return fail(ErrorCode::kInvalid, fmt::format("{}: {}", what, gnutls().strerror(code)));
}

/// The key of `user` in a file of "user:hexkey" lines, hexadecimal.
Result<std::string> find_key(const std::string& path, const std::string& user) {
  std::ifstream stream(path);
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(user + ":")) {
      return line.substr(user.size() + 1);
    }
  }
  return fail(ErrorCode::kNotFound, fmt::format("Username {} not found in PSK file", user));
}

}  // namespace

TlsCredentials::TlsCredentials(TlsOptions options)
    : options_(std::move(options)), handles_(std::make_unique<Handles>()) {}

TlsCredentials::~TlsCredentials() {
  if (handles_->certificate != nullptr) {
    gnutls().certificate_free_credentials(handles_->certificate);
  }
  if (handles_->server_psk != nullptr) {
    gnutls().psk_free_server_credentials(handles_->server_psk);
  }
  if (handles_->client_psk != nullptr) {
    gnutls().psk_free_client_credentials(handles_->client_psk);
  }
  if (handles_->dh != nullptr) {
    gnutls().dh_params_deinit(handles_->dh);
  }
}

Result<std::shared_ptr<const TlsCredentials>> TlsCredentials::load(const TlsOptions& options) {
  if (options.folder.empty()) {
    return fail(ErrorCode::kInvalid, "Missing 'dir' property value");
  }
  if (auto library = GnuTls::load(); !library) {
    return std::unexpected(library.error());
  }
  std::shared_ptr<TlsCredentials> credentials(new TlsCredentials(options));
  auto loaded = options.kind == TlsOptions::Kind::kX509 ? credentials->load_x509() : credentials->load_psk();
  if (!loaded) {
    return std::unexpected(loaded.error());
  }
  return std::shared_ptr<const TlsCredentials>(std::move(credentials));
}

Result<std::string> TlsCredentials::find(const std::string& name, bool required) const {
  auto path = options_.folder + "/" + name;
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0) {
    return path;
  }
  if (errno == ENOENT && !required) {
    return std::string();
  }
  return fail_errno(errno, "Unable to access credentials " + path);
}

Result<void> TlsCredentials::load_x509() {
  const bool server = options_.side == TlsSide::kServer;
  const std::string side = server ? "server" : "client";
  // A server has nothing to show without a certificate; who checks the other side needs the authority's.
  const auto authority = find("ca-cert.pem", !server || options_.verify_peer);
  const auto revoked = find("ca-crl.pem", false);
  const auto certificate = find(side + "-cert.pem", server);
  const auto key = find(side + "-key.pem", server);
  const auto parameters = server ? find("dh-params.pem", false) : Result<std::string>("");
  for (const auto* found : {&authority, &revoked, &certificate, &key, &parameters}) {
    if (!*found) {
      return std::unexpected(found->error());
    }
  }
  auto& to = handles_->certificate;
  if (const int code = gnutls().certificate_allocate_credentials(&to); code < 0) {
    return tls_error(code, "Cannot allocate credentials");
  }
  if (!authority->empty()) {
    if (const int code =
            gnutls().certificate_set_x509_trust_file(to, authority->c_str(), GNUTLS_X509_FMT_PEM);
        code < 0) {
      return tls_error(code, fmt::format("Cannot load CA certificate '{}'", *authority));
    }
  }
  if (!certificate->empty() && !key->empty()) {
    const char* const password = options_.key_password.empty() ? nullptr : options_.key_password.c_str();
    if (const int code = gnutls().certificate_set_x509_key_file2(to, certificate->c_str(), key->c_str(),
                                                                 GNUTLS_X509_FMT_PEM, password, 0);
        code < 0) {
      return tls_error(code, fmt::format("Cannot load certificate '{}' & key '{}'", *certificate, *key));
    }
  }
  if (!revoked->empty()) {
    if (const int code = gnutls().certificate_set_x509_crl_file(to, revoked->c_str(), GNUTLS_X509_FMT_PEM);
        code < 0) {
      return tls_error(code, fmt::format("Cannot load CRL '{}'", *revoked));
    }
  }
  return server ? handles_->load_dh(*parameters) : Result<void>{};
}

Result<void> TlsCredentials::load_psk() {
  const auto path = find("keys.psk", true);
  if (!path) {
    return std::unexpected(path.error());
  }
  if (options_.side == TlsSide::kServer) {
    if (const int code = gnutls().psk_allocate_server_credentials(&handles_->server_psk); code < 0) {
      return tls_error(code, "Cannot allocate credentials");
    }
    if (const int code = gnutls().psk_set_server_credentials_file(handles_->server_psk, path->c_str());
        code < 0) {
      return tls_error(code, "Cannot set PSK server credentials");
    }
    return handles_->load_dh("");
  }
  if (options_.user.empty()) {
    options_.user = "qemu";
  }
  const auto key = find_key(*path, options_.user);
  if (!key) {
    return std::unexpected(key.error());
  }
  if (const int code = gnutls().psk_allocate_client_credentials(&handles_->client_psk); code < 0) {
    return tls_error(code, "Cannot allocate credentials");
  }
  gnutls_datum_t datum{reinterpret_cast<unsigned char*>(const_cast<char*>(key->data())),
                       static_cast<unsigned>(key->size())};
  if (const int code = gnutls().psk_set_client_credentials(handles_->client_psk, options_.user.c_str(),
                                                           &datum, GNUTLS_PSK_KEY_HEX);
      code < 0) {
    return tls_error(code, "Cannot set PSK client credentials");
  }
  return {};
}

Result<void> TlsCredentials::Handles::load_dh(const std::string& path) {
  if (path.empty()) {  // the groups of RFC 7919
    if (certificate != nullptr) {
      gnutls().certificate_set_known_dh_params(certificate, GNUTLS_SEC_PARAM_MEDIUM);
    }
    if (server_psk != nullptr) {
      gnutls().psk_set_server_known_dh_params(server_psk, GNUTLS_SEC_PARAM_MEDIUM);
    }
    return {};
  }
  std::ifstream stream(path);
  std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (text.empty()) {
    return fail(ErrorCode::kInvalid, fmt::format("Unable to read DH parameters '{}'", path));
  }
  const gnutls_datum_t content{reinterpret_cast<unsigned char*>(text.data()),
                               static_cast<unsigned>(text.size())};
  int code = gnutls().dh_params_init(&dh);
  if (code >= 0) {
    code = gnutls().dh_params_import_pkcs3(dh, &content, GNUTLS_X509_FMT_PEM);
  }
  if (code < 0) {
    return tls_error(code, fmt::format("Unable to load DH parameters '{}'", path));
  }
  gnutls().certificate_set_dh_params(certificate, dh);
  return {};
}

}  // namespace whistler::nbd
