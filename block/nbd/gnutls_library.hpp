// gnutls, loaded when the first credentials are: a machine without TLS spends no memory and no start-up time
// on it. Only for the files of this folder.
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "base/result.hpp"

namespace whistler::nbd {

// Every function of gnutls used here, without its prefix.
#define WHISTLER_GNUTLS_FUNCTIONS(use)                                                                       \
  use(bye) use(certificate_allocate_credentials) use(certificate_free_credentials)                           \
      use(certificate_get_peers) use(certificate_server_set_request) use(certificate_set_dh_params)          \
          use(certificate_set_known_dh_params) use(certificate_set_x509_crl_file)                            \
              use(certificate_set_x509_key_file2) use(certificate_set_x509_trust_file)                       \
                  use(certificate_verify_peers2) use(credentials_set) use(deinit) use(dh_params_deinit)      \
                      use(dh_params_import_pkcs3) use(dh_params_init) use(error_is_fatal) use(handshake)     \
                          use(init) use(priority_set_direct) use(psk_allocate_client_credentials)            \
                              use(psk_allocate_server_credentials) use(psk_free_client_credentials)          \
                                  use(psk_free_server_credentials) use(psk_set_client_credentials) use(      \
                                      psk_set_server_credentials_file) use(psk_set_server_known_dh_params)   \
                                      use(record_get_direction) use(record_recv) use(record_send)            \
                                          use(server_name_set) use(strerror) use(transport_set_ptr) use(     \
                                              transport_set_pull_function) use(transport_set_push_function)  \
                                              use(x509_crt_check_hostname) use(x509_crt_deinit)              \
                                                  use(x509_crt_get_activation_time) use(x509_crt_get_dn)     \
                                                      use(x509_crt_get_expiration_time) use(x509_crt_import) \
                                                          use(x509_crt_init)

struct GnuTls {
  /// Loads the library the first time; the error names it and the package to install. Any thread.
  [[nodiscard]] static Result<void> load();

#define WHISTLER_GNUTLS_MEMBER(name) decltype(&::gnutls_##name) name = nullptr;
  WHISTLER_GNUTLS_FUNCTIONS(WHISTLER_GNUTLS_MEMBER)
#undef WHISTLER_GNUTLS_MEMBER
};

/// The functions; only once load() has succeeded.
const GnuTls& gnutls();

}  // namespace whistler::nbd
