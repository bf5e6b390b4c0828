#include "block/nbd/address.hpp"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

#include "block/uring/stoppable.hpp"

namespace whistler::nbd {

namespace {

Result<ResolvedAddress> unix_address(const std::string& path) {
  sockaddr_un address{};
  if (path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::kInvalid, fmt::format("UNIX socket path '{}' is too long\n"
                                                 "Path must be less than {} bytes",
                                                 path, sizeof address.sun_path));
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  ResolvedAddress resolved;
  std::memcpy(&resolved.storage, &address, sizeof address);
  resolved.bytes = sizeof address;
  return resolved;
}

Result<std::vector<ResolvedAddress>> look_up(const Address& address, bool passive) {
  if (address.is_unix()) {
    auto resolved = unix_address(address.socket);
    if (!resolved) {
      return std::unexpected(resolved.error());
    }
    return std::vector{*resolved};
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  addrinfo* list = nullptr;
  if (const int code = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &list); code != 0) {
    return fail(ErrorCode::kNotFound,
                fmt::format("address resolution failed for {}: {}", address.text(), ::gai_strerror(code)));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, ::freeaddrinfo);
  std::vector<ResolvedAddress> resolved;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    auto& next = resolved.emplace_back();
    std::memcpy(&next.storage, entry->ai_addr, entry->ai_addrlen);
    next.bytes = entry->ai_addrlen;
  }
  return resolved;
}

/// The errno text behind "Failed to bind socket" and its like.
std::unexpected<Error> listen_error(const Address& address, int errnum) {
  if (address.is_unix()) {
    return fail_errno(errnum, "Failed to bind socket to " + address.socket);
  }
  return fail_errno(errnum,
                    errnum == EADDRINUSE ? "Failed to find an available port" : "Failed to bind socket");
}

}  // namespace

std::string Address::text() const { return is_unix() ? socket : fmt::format("{}:{}", host, port); }

Result<std::vector<ResolvedAddress>> resolve(const Address& address) { return look_up(address, false); }

Task<Result<UniqueFd>> connect_to(Ring& ring, std::vector<ResolvedAddress> resolved, Address address,
                                  Stop* stop) {
  int errnum = ECONNREFUSED;
  for (const auto& candidate : resolved) {
    UniqueFd socket(::socket(candidate.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket) {
      errnum = errno;
      continue;
    }
    auto connecting =
        ring.connect(socket.get(), reinterpret_cast<const sockaddr*>(&candidate.storage), candidate.bytes);
    const auto result = co_await stoppable(ring, connecting, stop);
    if (result == 0) {
      if (!address.is_unix()) {
        const int on = 1;
        ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      }
      co_return socket;
    }
    errnum = -result;
  }
  co_return fail_errno(errnum, fmt::format("Failed to connect to '{}'", address.text()));
}

Result<std::vector<UniqueFd>> listen_on(const Address& address, int backlog) {
  const auto resolved = look_up(address, true);
  if (!resolved) {
    return std::unexpected(resolved.error());
  }
  std::vector<UniqueFd> sockets;
  int errnum = 0;
  for (const auto& candidate : *resolved) {
    UniqueFd socket(::socket(candidate.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket) {
      errnum = errno;
      continue;
    }
    const int on = 1;
    if (address.is_unix()) {
      if (::unlink(address.socket.c_str()) != 0 && errno != ENOENT) {
        return fail_errno(errno, "Failed to unlink socket " + address.socket);
      }
    } else {
      ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    }
    if (candidate.storage.ss_family == AF_INET6) {
      ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    }
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&candidate.storage), candidate.bytes) != 0) {
      errnum = errno;
      continue;
    }
    if (::listen(socket.get(), backlog) != 0) {
      return fail_errno(errno, "Failed to listen on socket");
    }
    sockets.push_back(std::move(socket));
  }
  if (sockets.empty()) {
    return listen_error(address, errnum);
  }
  return sockets;
}

}  // namespace whistler::nbd
