#include "devices/vnc/vnc_listener.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

namespace whistler {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
constexpr int kFirstPort = 5900;
constexpr int kLastPort = 65535;
constexpr int kBacklog = 16;

/// The address of a TCP socket, without its port.
struct InetAddress {
  int family = AF_UNSPEC;
  in_addr v4{};
  in6_addr v6{};
};

Result<InetAddress> parse_address(const std::string& text) {
  InetAddress address;
  const char* const numeric = text == "localhost" ? "127.0.0.1" : text.c_str();
  if (::inet_pton(AF_INET, numeric, &address.v4) == 1) {
    address.family = AF_INET;
  } else if (::inet_pton(AF_INET6, numeric, &address.v6) == 1) {
    address.family = AF_INET6;
  } else {
    return fail(
        ErrorCode::kInvalid,
        fmt::format("vnc.listen: \"{}\" is no address; give a numeric IPv4 or IPv6 address, \"localhost\" or "
                    "\"unix:PATH\"",
                    text));
  }
  return address;
}

/// Binds and listens; an errno if that fails.
int bind_inet(int fd, const InetAddress& address, int port) {
  const int yes = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  int bound = -1;
  if (address.family == AF_INET) {
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(static_cast<std::uint16_t>(port));
    name.sin_addr = address.v4;
    bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof(name));
  } else {
    sockaddr_in6 name{};
    name.sin6_family = AF_INET6;
    name.sin6_port = htons(static_cast<std::uint16_t>(port));
    name.sin6_addr = address.v6;
    bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof(name));
  }
  return bound == 0 && ::listen(fd, kBacklog) == 0 ? 0 : errno;
}

unsigned port_of(int fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) {
    return 0;
  }
  return name.ss_family == AF_INET ? ntohs(reinterpret_cast<const sockaddr_in&>(name).sin_port)
                                   : ntohs(reinterpret_cast<const sockaddr_in6&>(name).sin6_port);
}

std::string with_port(const std::string& listen, unsigned port) {
  return listen.find(':') == std::string::npos ? fmt::format("{}:{}", listen, port)
                                               : fmt::format("[{}]:{}", listen, port);
}

Result<VncListener> listen_inet(const std::string& listen, int port) {
  if (port < -1 || port > kLastPort) {
    return fail(
        ErrorCode::kInvalid,
        fmt::format("vnc.port: {} is not between 0 and 65535, or -1 for the first free from 5900 on", port));
  }
  const auto address = parse_address(listen);
  if (!address) {
    return std::unexpected(address.error());
  }
  const int first = port == -1 ? kFirstPort : port;
  const int last = port == -1 ? kLastPort : port;
  int error = 0;
  for (int each = first; each <= last; ++each) {
    VncListener listener;
    listener.fd = ::socket(address->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener.fd < 0) {
      return fail_errno(errno, fmt::format("VNC: cannot make a socket for {}", listen));
    }
    error = bind_inet(listener.fd, *address, each);
    if (error == 0) {
      listener.port = port_of(listener.fd);
      listener.address = with_port(listen, listener.port);
      return listener;
    }
    if (error != EADDRINUSE) {
      break;
    }
  }
  if (error == EADDRINUSE && port != -1) {
    return std::unexpected(Error{
        ErrorCode::kBusy, error,
        fmt::format("VNC: {} is taken by another program; choose another vnc.port, or -1 for the first free",
                    with_port(listen, static_cast<unsigned>(port)))});
  }
  std::string what = fmt::format("VNC: cannot listen on {}", with_port(listen, static_cast<unsigned>(first)));
  if (error == EACCES) {
    what += " (ports below 1024 are the administrator's; choose another vnc.port)";
  } else if (error == EADDRNOTAVAIL) {
    what += " (not an address of this host; change vnc.listen)";
  }
  return fail_errno(error, what);
}

/// True if `name` is a socket that nobody listens on any more.
bool is_stale(const sockaddr_un& name) {
  struct stat status{};
  if (::stat(name.sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) {
    return false;
  }
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const bool refused =
      ::connect(probe, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0 && errno == ECONNREFUSED;
  ::close(probe);
  return refused;
}

Result<VncListener> listen_unix(const std::string& listen) {
  const std::string path = listen.substr(kUnixPrefix.size());
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) {
    return fail(ErrorCode::kInvalid, fmt::format("vnc.listen: the path of \"{}\" must have 1 to {} bytes",
                                                 listen, sizeof(name.sun_path) - 1));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  VncListener listener;
  listener.fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener.fd < 0) {
    return fail_errno(errno, fmt::format("VNC: cannot make a socket for {}", listen));
  }
  ::fchmod(listener.fd, S_IRUSR | S_IWUSR);  // what bind() gives the file
  const auto bind = [&] {
    return ::bind(listener.fd, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0 ? 0 : errno;
  };
  int error = bind();
  if (error == EADDRINUSE && is_stale(name)) {
    ::unlink(path.c_str());
    error = bind();
  }
  if (error == EADDRINUSE) {
    return std::unexpected(
        Error{ErrorCode::kBusy, error,
              fmt::format(
                  "VNC: {} exists and is in use or no socket; choose another path in vnc.listen or remove it",
                  listen)});
  }
  if (error != 0) {
    return fail_errno(error, fmt::format("VNC: cannot listen on {}", listen));
  }
  listener.unix_path = path;
  listener.address = listen;
  if (::listen(listener.fd, kBacklog) != 0) {
    return fail_errno(errno, fmt::format("VNC: cannot listen on {}", listen));
  }
  return listener;
}

}  // namespace

VncListener::VncListener(VncListener&& other) noexcept
    : fd(std::exchange(other.fd, -1)),
      port(other.port),
      address(std::move(other.address)),
      unix_path(std::exchange(other.unix_path, {})) {}

VncListener::~VncListener() {
  if (fd >= 0) {
    ::close(fd);
  }
  if (!unix_path.empty()) {
    ::unlink(unix_path.c_str());
  }
}

Result<VncListener> vnc_listen(const std::string& listen, int port) {
  return listen.starts_with(kUnixPrefix) ? listen_unix(listen) : listen_inet(listen, port);
}

}  // namespace whistler
