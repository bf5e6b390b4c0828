// Where a server is: its address, and how a client names it.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/stop.hpp"
#include "base/unique_fd.hpp"
#include "block/uring/ring.hpp"

namespace whistler::nbd {

struct Address {
  std::string socket = {};  ///< path of a unix socket; empty: TCP
  std::string host = {};
  std::string port = {};

  [[nodiscard]] bool is_unix() const { return host.empty(); }
  /// "HOST:PORT" or the path.
  [[nodiscard]] std::string text() const;
  bool operator==(const Address&) const = default;
};

/// What a file name or URL says.
struct Target {
  Address address;
  std::string export_name = {};
  bool tls = false;

  /// As a URL: "nbd://HOST:PORT/EXPORT" or "nbd+unix:///EXPORT?socket=PATH".
  [[nodiscard]] std::string url() const;
};

/// Whether `name` is meant for parse_target(): it begins with one of its schemes.
[[nodiscard]] bool is_target(const std::string& name);
/// nbd://, nbd+tcp://, nbd+unix://, nbds://, nbds+tcp://, nbds+unix://, nbd:HOST:PORT[:exportname=NAME] and
/// nbd:unix:PATH[:exportname=NAME].
[[nodiscard]] Result<Target> parse_target(const std::string& name);

struct ResolvedAddress {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
};

/// Asks the resolver, which may take its time. At least one, or an error.
[[nodiscard]] Result<std::vector<ResolvedAddress>> resolve(const Address& address);

/// Tries one after the other, until `stop` (may be null) is asked for. `address` is for the message.
[[nodiscard]] Task<Result<UniqueFd>> connect_to(Ring& ring, std::vector<ResolvedAddress> resolved,
                                                Address address, Stop* stop = nullptr);

/// A socket for each address the name stands for. A unix socket that exists is replaced.
[[nodiscard]] Result<std::vector<UniqueFd>> listen_on(const Address& address, int backlog);

}  // namespace whistler::nbd
