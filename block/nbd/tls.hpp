// TLS by gnutls: credentials as QEMU's tls-creds objects keep them in a folder, and sessions on a connection.
#pragma once

#include <memory>
#include <string>

#include "block/nbd/stream.hpp"

namespace whistler::nbd {

enum class TlsSide : std::uint8_t { kServer, kClient };

struct TlsOptions {
  enum class Kind : std::uint8_t { kX509, kPsk };
  Kind kind = Kind::kX509;
  TlsSide side = TlsSide::kClient;
  /// x509: ca-cert.pem, ca-crl.pem, server-cert.pem, server-key.pem, client-cert.pem, client-key.pem,
  /// dh-params.pem; psk: keys.psk.
  std::string folder = {};
  /// x509: check the other side's certificate.
  bool verify_peer = true;
  /// psk: the client's name; empty: "qemu".
  std::string user = {};
  /// gnutls priorities; empty: "NORMAL".
  std::string priority = {};
  /// Of the x509 private key, if it is encrypted.
  std::string key_password = {};
};

/// Loaded once, shared by every connection.
class TlsCredentials {
 public:
  [[nodiscard]] static Result<std::shared_ptr<const TlsCredentials>> load(const TlsOptions& options);
  ~TlsCredentials();
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;

  [[nodiscard]] const TlsOptions& options() const { return options_; }

 private:
  friend class TlsStream;
  struct Handles;
  explicit TlsCredentials(TlsOptions options);
  [[nodiscard]] Result<void> load_x509();
  [[nodiscard]] Result<void> load_psk();
  /// The file's path; empty if it is not there and need not be.
  [[nodiscard]] Result<std::string> find(const std::string& name, bool required) const;

  TlsOptions options_;
  std::unique_ptr<Handles> handles_;
};

class TlsStream final : public Stream {
 public:
  /// Shakes hands on `socket` and checks the other side. `host`: whom the server's certificate must name.
  /// `authorized`: the only distinguished name a client may have; empty: any.
  [[nodiscard]] static Task<Result<std::unique_ptr<TlsStream>>> start(
      Ring& ring, int socket, std::shared_ptr<const TlsCredentials> credentials, std::string host,
      std::string authorized);
  ~TlsStream() override;
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  [[nodiscard]] Task<Result<std::size_t>> receive(void* to, std::size_t bytes, bool all) override;
  [[nodiscard]] Task<Result<void>> send(IoVec from) override;
  void shut_down() override;
  void finish() override;

 private:
  struct Session;
  TlsStream(Ring& ring, int socket, std::shared_ptr<const TlsCredentials> credentials);
  [[nodiscard]] Result<void> set_up(const std::string& host);
  [[nodiscard]] Task<Result<void>> shake_hands();
  [[nodiscard]] Result<void> check_peer(const std::string& host, const std::string& authorized);
  /// Waits for what gnutls wants to do next.
  [[nodiscard]] Task<Result<void>> wait();

  Ring& ring_;
  int socket_;
  std::shared_ptr<const TlsCredentials> credentials_;
  std::unique_ptr<Session> session_;
};

}  // namespace whistler::nbd
