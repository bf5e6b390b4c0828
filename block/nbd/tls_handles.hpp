// gnutls' own objects, kept out of the headers others include.
#pragma once

#include <gnutls/gnutls.h>

#include "block/nbd/tls.hpp"

namespace whistler::nbd {

struct TlsCredentials::Handles {
  gnutls_certificate_credentials_t certificate = nullptr;
  gnutls_psk_server_credentials_t server_psk = nullptr;
  gnutls_psk_client_credentials_t client_psk = nullptr;
  gnutls_dh_params_t dh = nullptr;

  /// Diffie-Hellman parameters of a server; without a file, well-known ones.
  [[nodiscard]] Result<void> load_dh(const std::string& path);
};

}  // namespace whistler::nbd
