#include "block/nbd/server.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "block/nbd/session.hpp"

namespace whistler::nbd {

std::uint16_t Export::flags(bool structured) const {
  std::uint16_t flags = kHasFlags | kSendFlush | kSendFua | kSendCache;
  if (read_only) {
    flags |= kReadOnly;
  } else {
    flags |= kSendTrim | kSendWriteZeroes | kSendFastZero;
  }
  if (multi_conn) {
    flags |= kCanMultiConn;
  }
  if (structured) {
    flags |= kSendDf;
  }
  return flags;
}

Server::Server(Ring& ring, std::vector<Export> exports, ServerOptions options)
    : ring_(ring), exports_(std::move(exports)), options_(std::move(options)) {}

Server::~Server() = default;

void Server::listen(std::vector<UniqueFd> sockets) {
  for (auto& socket : sockets) {
    spawn(accept_loop(socket.get()));
    sockets_.push_back(std::move(socket));
  }
}

Task<void> Server::accept_loop(int socket) {
  const auto pass = running_.enter();
  while (!stopping_) {
    if (options_.max_clients != 0 && sessions_.size() >= options_.max_clients) {
      co_await client_left_.wait();
      continue;
    }
    auto operation = ring_.accept(socket);
    const auto listed = accepts_.insert(accepts_.end(), &operation);
    const int result = co_await operation;
    accepts_.erase(listed);
    if (result >= 0) {
      serve(UniqueFd(result));
    } else if (!stopping_ && (result == -EMFILE || result == -ENFILE || result == -ENOBUFS)) {
      auto pause = ring_.timeout(std::chrono::milliseconds(100));  // until some descriptor is free again
      (void)co_await pause;
    }
  }
}

void Server::serve(UniqueFd connection) {
  const int on = 1;
  ::setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(connection.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  auto session = std::make_shared<Session>(ring_, exports_, options_, std::move(connection));
  sessions_.push_back(session);
  spawn(run_session(std::move(session)));
}

Task<void> Server::run_session(std::shared_ptr<Session> session) {
  const auto pass = running_.enter();
  if (stopping_) {
    session->shut_down();
  }
  auto result = co_await session->run();
  if (!result && options_.log && !stopping_) {
    options_.log(result.error().message);
  }
  sessions_.remove(session);
  const bool negotiated = session->negotiated();
  session.reset();
  client_left_.wake_all();
  if (negotiated && options_.on_client_left) {
    options_.on_client_left(sessions_.size());
  }
}

Task<void> Server::stop() {
  stopping_ = true;
  for (auto* accept : accepts_) {
    ring_.cancel(*accept);
  }
  const auto sessions = sessions_;
  for (const auto& session : sessions) {
    session->shut_down();
  }
  client_left_.wake_all();
  co_await running_.drain();
  sockets_.clear();
}

}  // namespace whistler::nbd
