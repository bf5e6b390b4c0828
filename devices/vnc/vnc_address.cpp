#include "devices/vnc/vnc_address.hpp"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace whistler {
namespace {

VncAddress socket_address(int socket, int (*ask)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  auto* const address = reinterpret_cast<sockaddr*>(&storage);
  if (ask(socket, address, &length) != 0) {
    return {};
  }
  if (storage.ss_family == AF_UNIX) {
    sockaddr_un path{};
    std::memcpy(&path, &storage, std::min<std::size_t>(length, sizeof path - 1));
    return {.service = path.sun_path, .family = "unix"};
  }
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> service{};
  ::getnameinfo(address, length, host.data(), host.size(), service.data(), service.size(),
                NI_NUMERICHOST | NI_NUMERICSERV);
  return {.host = host.data(),
          .service = service.data(),
          .family = storage.ss_family == AF_INET6 ? "ipv6" : "ipv4"};
}

}  // namespace

VncAddress local_address(int socket) { return socket_address(socket, ::getsockname); }

VncAddress peer_address(int socket) { return socket_address(socket, ::getpeername); }

}  // namespace whistler
