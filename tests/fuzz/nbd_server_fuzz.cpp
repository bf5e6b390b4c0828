// Any bytes as what a client sends: the server has one disk in memory, writable, with TLS left out.
#include <poll.h>
#include <sys/socket.h>

#include <array>

#include "block/memory.hpp"
#include "block/nbd/server.hpp"

namespace {

constexpr std::uint64_t kDisk = 1 << 20;

/// Throws away what the server has said.
void drain(int peer) {
  std::array<char, 65536> buffer{};
  while (::recv(peer, buffer.data(), buffer.size(), MSG_DONTWAIT) > 0) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace whistler;
  static const auto ring = std::move(Ring::create().value());
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return 0;
  }
  const UniqueFd peer(ends[0]);
  nbd::Export shown{.name = "disk",
                    .description = "a disk",
                    .device = std::make_shared<MemoryBlockDevice>(kDisk),
                    .bytes = kDisk};
  nbd::Server server(*ring, {shown}, {});
  server.serve(UniqueFd(ends[1]));
  std::size_t sent = 0;
  while (server.clients() != 0) {
    if (sent < bytes) {
      const auto count = ::send(peer.get(), data + sent, bytes - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
      sent = count > 0 ? sent + static_cast<std::size_t>(count) : (errno == EAGAIN ? sent : bytes);
      if (sent == bytes) {
        ::shutdown(peer.get(), SHUT_WR);
      }
    } else if (bytes == 0) {
      ::shutdown(peer.get(), SHUT_WR);
    }
    ring->run_once(false);
    drain(peer.get());
  }
  sync_wait(*ring, server.stop());
  return 0;
}
