#include "block/nbd/tls.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <ctime>

#include "block/nbd/gnutls_library.hpp"
#include "block/nbd/tls_handles.hpp"

namespace whistler::nbd {

namespace {

ssize_t push(gnutls_transport_ptr_t socket, const void* from, std::size_t bytes) {
  return ::send(static_cast<int>(reinterpret_cast<std::intptr_t>(socket)), from, bytes,
                MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t pull(gnutls_transport_ptr_t socket, void* to, std::size_t bytes) {
  return ::recv(static_cast<int>(reinterpret_cast<std::intptr_t>(socket)), to, bytes, MSG_DONTWAIT);
}

/// Whether gnutls wants to be asked again, after waiting or at once.
bool is_temporary(ssize_t code) { return code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED; }

std::unexpected<Error> handshake_error(const std::string& reason) {
  return fail(ErrorCode::kPermission, fmt::format("TLS handshake failed: {}", reason));
}

/// The error of a session in use, by what QEMU makes of it.
std::unexpected<Error> channel_error(ssize_t code, const char* verb) {
  return fail_errno(code == GNUTLS_E_PREMATURE_TERMINATION ? ECONNABORTED : EIO, verb);
}

std::unexpected<Error> refuse(std::string reason) { return fail(ErrorCode::kPermission, std::move(reason)); }

/// One certificate of the other side, taken apart.
struct Certificate {
  gnutls_x509_crt_t handle = nullptr;
  Certificate() { gnutls().x509_crt_init(&handle); }
  ~Certificate() { gnutls().x509_crt_deinit(handle); }
  Certificate(const Certificate&) = delete;
  Certificate& operator=(const Certificate&) = delete;

  [[nodiscard]] Result<void> check_dates() const {
    const auto now = ::time(nullptr);
    if (gnutls().x509_crt_get_expiration_time(handle) < now) {
      return refuse("The certificate has expired");
    }
    if (gnutls().x509_crt_get_activation_time(handle) > now) {
      return refuse("The certificate is not yet activated");
    }
    return {};
  }
  [[nodiscard]] Result<std::string> distinguished_name() const {
    std::array<char, 1024> name{};
    std::size_t bytes = name.size();
    if (const int code = gnutls().x509_crt_get_dn(handle, name.data(), &bytes); code < 0) {
      return refuse(fmt::format("Cannot get client distinguished name: {}", gnutls().strerror(code)));
    }
    return std::string(name.data());
  }
};

}  // namespace

struct TlsStream::Session {
  gnutls_session_t handle = nullptr;
  ~Session() {
    if (handle != nullptr) {
      gnutls().deinit(handle);
    }
  }
};

TlsStream::TlsStream(Ring& ring, int socket, std::shared_ptr<const TlsCredentials> credentials)
    : ring_(ring),
      socket_(socket),
      credentials_(std::move(credentials)),
      session_(std::make_unique<Session>()) {}

TlsStream::~TlsStream() = default;

Task<Result<std::unique_ptr<TlsStream>>> TlsStream::start(Ring& ring, int socket,
                                                          std::shared_ptr<const TlsCredentials> credentials,
                                                          std::string host, std::string authorized) {
  std::unique_ptr<TlsStream> stream(new TlsStream(ring, socket, std::move(credentials)));
  if (auto ok = stream->set_up(host); !ok) {
    co_return std::unexpected(ok.error());
  }
  auto shaken = co_await stream->shake_hands();
  if (!shaken) {
    co_return std::unexpected(shaken.error());
  }
  if (auto ok = stream->check_peer(host, authorized); !ok) {
    stream->shut_down();  // the other side reads an end; closing at once, it could be a reset
    co_return std::unexpected(ok.error());
  }
  co_return stream;
}

Result<void> TlsStream::set_up(const std::string& host) {
  const auto& options = credentials_->options_;
  const auto& handles = *credentials_->handles_;
  const bool server = options.side == TlsSide::kServer;
  auto& session = session_->handle;
  const auto failed = [](const char* what, int code) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: {}", what, gnutls().strerror(code)));
  };
  if (const int code = gnutls().init(
          &session, (server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
      code < 0) {
    return failed("Cannot initialize TLS session", code);
  }
  auto priority = options.priority.empty() ? std::string("NORMAL") : options.priority;
  const bool psk = options.kind == TlsOptions::Kind::kPsk;
  if (psk) {
    priority += ":+ECDHE-PSK:+DHE-PSK:+PSK";
  }
  if (const int code = gnutls().priority_set_direct(session, priority.c_str(), nullptr); code < 0) {
    return failed("Unable to set TLS session priority", code);
  }
  int code = 0;
  if (!psk) {
    code = gnutls().credentials_set(session, GNUTLS_CRD_CERTIFICATE, handles.certificate);
  } else if (server) {
    code = gnutls().credentials_set(session, GNUTLS_CRD_PSK, handles.server_psk);
  } else {
    code = gnutls().credentials_set(session, GNUTLS_CRD_PSK, handles.client_psk);
  }
  if (code < 0) {
    return failed("Cannot set session credentials", code);
  }
  if (server && !psk) {
    gnutls().certificate_server_set_request(session,
                                            options.verify_peer ? GNUTLS_CERT_REQUEST : GNUTLS_CERT_IGNORE);
  }
  if (!server && !host.empty()) {
    std::array<unsigned char, 16> address{};
    const bool numeric = ::inet_pton(AF_INET, host.c_str(), address.data()) == 1 ||
                         ::inet_pton(AF_INET6, host.c_str(), address.data()) == 1;
    if (!numeric) {
      gnutls().server_name_set(session, GNUTLS_NAME_DNS, host.data(), host.size());
    }
  }
  gnutls().transport_set_ptr(session, reinterpret_cast<void*>(static_cast<std::intptr_t>(socket_)));
  gnutls().transport_set_push_function(session, push);
  gnutls().transport_set_pull_function(session, pull);
  return {};
}

Task<Result<void>> TlsStream::wait() {
  const bool to_write = gnutls().record_get_direction(session_->handle) == 1;
  const auto events = co_await ring_.poll(socket_, static_cast<short>(to_write ? POLLOUT : POLLIN));
  if (events < 0) {
    co_return fail_errno(-events, "Unable to wait for the connection");
  }
  co_return Result<void>{};
}

Task<Result<void>> TlsStream::shake_hands() {
  for (;;) {
    const int code = gnutls().handshake(session_->handle);
    if (code == GNUTLS_E_SUCCESS) {
      co_return Result<void>{};
    }
    if (code == GNUTLS_E_AGAIN) {
      auto waited = co_await wait();
      if (!waited) {
        co_return waited;
      }
    } else if (gnutls().error_is_fatal(code) != 0) {
      co_return handshake_error(gnutls().strerror(code));
    }
  }
}

Result<void> TlsStream::check_peer(const std::string& host, const std::string& authorized) {
  const auto& options = credentials_->options_;
  if (options.kind == TlsOptions::Kind::kPsk || !options.verify_peer) {
    return {};
  }
  auto& session = session_->handle;
  unsigned status = 0;
  if (const int code = gnutls().certificate_verify_peers2(session, &status); code < 0) {
    return refuse(fmt::format("Verify failed: {}", gnutls().strerror(code)));
  }
  if (status != 0) {
    if ((status & GNUTLS_CERT_REVOKED) != 0) {
      return refuse("The certificate has been revoked");
    }
    if ((status & GNUTLS_CERT_SIGNER_NOT_FOUND) != 0) {
      return refuse("The certificate hasn't got a known issuer");
    }
    if ((status & GNUTLS_CERT_INSECURE_ALGORITHM) != 0) {
      return refuse("The certificate uses an insecure algorithm");
    }
    if ((status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED)) == 0) {
      return refuse("Invalid certificate");
    }
  }
  unsigned count = 0;
  const gnutls_datum_t* const list = gnutls().certificate_get_peers(session, &count);
  if (list == nullptr || count == 0) {
    return refuse("No certificate peers");
  }
  for (unsigned i = 0; i < count; ++i) {
    const Certificate certificate;
    if (const int code = gnutls().x509_crt_import(certificate.handle, &list[i], GNUTLS_X509_FMT_DER);
        code < 0) {
      return refuse(fmt::format("Cannot import certificate: {}", gnutls().strerror(code)));
    }
    if (auto ok = certificate.check_dates(); !ok) {
      return ok;
    }
    if (i != 0) {
      continue;
    }
    if (!authorized.empty()) {
      const auto name = certificate.distinguished_name();
      if (!name) {
        return std::unexpected(name.error());
      }
      if (*name != authorized) {
        return refuse(fmt::format("TLS x509 authz check for {} is denied", *name));
      }
    }
    if (options.side == TlsSide::kClient) {
      if (host.empty()) {
        return refuse("No hostname for certificate validation");
      }
      if (gnutls().x509_crt_check_hostname(certificate.handle, host.c_str()) == 0) {
        return refuse(fmt::format("Certificate does not match the hostname {}", host));
      }
    }
  }
  return status == 0 ? Result<void>{} : refuse("Invalid certificate");
}

Task<Result<std::size_t>> TlsStream::receive(void* to, std::size_t bytes, bool all) {
  auto* const start = static_cast<std::uint8_t*>(to);
  std::size_t done = 0;
  while (done < bytes) {
    const auto got = gnutls().record_recv(session_->handle, start + done, bytes - done);
    if (got > 0) {
      done += static_cast<std::size_t>(got);
      if (!all) {
        break;
      }
    } else if (got == 0) {
      break;
    } else if (got == GNUTLS_E_AGAIN) {
      const auto events = co_await ring_.poll(socket_, POLLIN);
      if (events < 0) {
        co_return fail_errno(-events, "Cannot read from TLS channel");
      }
    } else if (!is_temporary(got) && gnutls().error_is_fatal(static_cast<int>(got)) != 0) {
      co_return channel_error(got, "Cannot read from TLS channel");
    }
  }
  co_return done;
}

Task<Result<void>> TlsStream::send(IoVec from) {
  for (const auto& piece : from) {
    const auto* const start = static_cast<const std::uint8_t*>(piece.iov_base);
    std::size_t done = 0;
    while (done < piece.iov_len) {
      const auto sent = gnutls().record_send(session_->handle, start + done, piece.iov_len - done);
      if (sent >= 0) {
        done += static_cast<std::size_t>(sent);
      } else if (sent == GNUTLS_E_AGAIN) {
        const auto events = co_await ring_.poll(socket_, POLLOUT);
        if (events < 0) {
          co_return fail_errno(-events, "Cannot write to TLS channel");
        }
      } else if (!is_temporary(sent)) {
        co_return channel_error(sent, "Cannot write to TLS channel");
      }
    }
  }
  co_return Result<void>{};
}

void TlsStream::shut_down() { ::shutdown(socket_, SHUT_RDWR); }

void TlsStream::finish() { gnutls().bye(session_->handle, GNUTLS_SHUT_WR); }

}  // namespace whistler::nbd
