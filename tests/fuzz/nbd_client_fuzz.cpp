// Any bytes as what a server sends: the client shakes hands and has a read, a status request and a flush
// under way.
#include <sys/socket.h>

#include <array>
#include <vector>

#include "block/nbd/connection.hpp"

namespace {

using namespace whistler;

constexpr std::uint32_t kBytes = 8192;

/// One request with memory of its own, which must outlive it whatever the server does.
Task<void> ask(std::shared_ptr<nbd::Connection> connection, nbd::Command command, unsigned& left) {
  std::vector<std::uint8_t> memory(kBytes);
  const iovec vec{memory.data(), memory.size()};
  const std::uint32_t length = command == nbd::Command::kFlush ? 0 : kBytes;
  (void)co_await connection->request({command, 0, 4096, length, {&vec, 1}});
  --left;
}

/// The requests are under way before the first reply is looked at.
Task<void> use(std::shared_ptr<nbd::Connection> connection, unsigned& left) {
  auto info = co_await connection->start(nullptr, "", "disk", "base:allocation");
  if (info) {
    for (const auto command : {nbd::Command::kRead, nbd::Command::kBlockStatus, nbd::Command::kFlush}) {
      ++left;
      spawn(ask(connection, command, left));
    }
    nbd::Connection::read_replies(connection);
  }
  --left;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  static const auto ring = std::move(Ring::create().value());
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return 0;
  }
  const UniqueFd peer(ends[0]);
  unsigned left = 1;
  const auto connection = std::make_shared<nbd::Connection>(*ring, UniqueFd(ends[1]));
  spawn(use(connection, left));
  std::size_t sent = 0;
  while (left != 0) {
    if (sent < bytes) {
      const auto count = ::send(peer.get(), data + sent, bytes - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
      sent = count > 0 ? sent + static_cast<std::size_t>(count) : (errno == EAGAIN ? sent : bytes);
    }
    if (sent == bytes) {
      ::shutdown(peer.get(), SHUT_WR);
    }
    ring->run_once(false);
    std::array<char, 4096> buffer{};
    while (::recv(peer.get(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0) {
    }
  }
  sync_wait(*ring, connection->close());
  return 0;
}
