// An NBD server on the executor: any number of clients, each with many requests in flight.
//
// A client is not trusted. Its options and requests have limits, the handshake has a time limit, and a client
// that does not read its replies holds up nobody but itself: it has at most kMaxRequests requests of together
// kMaxRequestBytes in memory.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "block/nbd/export.hpp"
#include "block/nbd/tls.hpp"

namespace whistler::nbd {

struct ServerOptions {
  /// With these a client must begin TLS before anything else.
  std::shared_ptr<const TlsCredentials> tls = {};
  /// The only distinguished name a client's certificate may have; empty: any that is valid.
  std::string authorized = {};
  /// How many clients are served at a time, the others wait; 0: no limit.
  unsigned max_clients = 0;
  std::chrono::seconds handshake_time{10};
  /// Told what went wrong with a client, one line each; it must not call the server.
  std::function<void(const std::string&)> log = {};
  /// Told when a client that got as far as an export is gone; the argument: how many clients are left.
  std::function<void(std::size_t)> on_client_left = {};
};

class Session;

class Server {
 public:
  static constexpr unsigned kMaxRequests = 64;
  static constexpr std::uint64_t kMaxRequestBytes = 64ULL * 1024 * 1024;

  Server(Ring& ring, std::vector<Export> exports, ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Accepts clients on `sockets` from now on.
  void listen(std::vector<UniqueFd> sockets);
  /// Serves this connection.
  void serve(UniqueFd connection);
  [[nodiscard]] std::size_t clients() const { return sessions_.size(); }

  /// Accepts no more, ends all connections, and waits for requests in flight. The devices are left to the
  /// caller to flush.
  [[nodiscard]] Task<void> stop();

 private:
  [[nodiscard]] Task<void> accept_loop(int socket);
  [[nodiscard]] Task<void> run_session(std::shared_ptr<Session> session);

  Ring& ring_;
  const std::vector<Export> exports_;
  const ServerOptions options_;
  std::vector<UniqueFd> sockets_;
  std::list<std::shared_ptr<Session>> sessions_;
  std::list<Ring::Operation*> accepts_;
  WaitQueue client_left_;
  Gate running_;
  bool stopping_ = false;
};

}  // namespace whistler::nbd
