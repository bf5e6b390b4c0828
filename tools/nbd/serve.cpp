#include "tools/nbd/serve.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "block/nbd/address.hpp"
#include "block/nbd/server.hpp"
#include "tools/nbd/daemon.hpp"
#include "tools/nbd/images.hpp"
#include "tools/objects.hpp"

namespace whistler::tools::nbd {

using whistler::nbd::Address;
using whistler::nbd::Server;
using whistler::nbd::ServerOptions;

namespace {

/// The signals that end the server, as a descriptor.
UniqueFd catch_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) {
    ::sigaddset(&set, number);
  }
  ::signal(SIGPIPE, SIG_IGN);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  return UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

/// A listening socket that whoever started us hands over (systemd's convention); nothing if there is none.
Result<std::vector<UniqueFd>> handed_over() {
  constexpr int kFirst = 3;
  std::vector<UniqueFd> sockets;
  const char* const process = std::getenv("LISTEN_PID");
  const char* const count = std::getenv("LISTEN_FDS");
  if (process == nullptr || count == nullptr || std::atol(process) != ::getpid()) {
    return sockets;
  }
  const int number = std::atoi(count);
  if (number != 1) {
    return fail(ErrorCode::kInvalid,
                fmt::format("qemu-nbd does not support socket activation with {} file descriptors.", number));
  }
  ::unsetenv("LISTEN_PID");
  ::unsetenv("LISTEN_FDS");
  ::fcntl(kFirst, F_SETFD, FD_CLOEXEC);
  sockets.emplace_back(kFirst);
  return sockets;
}

Result<void> write_pid_file(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  if (!file) {
    return fail_errno(errno, fmt::format("Could not create '{}'", path));
  }
  const auto text = fmt::format("{}\n", ::getpid());
  if (::ftruncate(file.get(), 0) != 0 ||
      ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return fail_errno(errno, fmt::format("Failed to write '{}'", path));
  }
  return {};
}

/// Tells `end` when a signal has come.
Task<void> watch_signals(Ring& ring, int signals, WaitQueue& end, bool& ending, Ring::Operation*& watching) {
  auto poll = ring.poll(signals, POLLIN);
  watching = &poll;
  (void)co_await poll;
  watching = nullptr;
  ending = true;
  end.wake_all();
}

Task<void> wait_for(WaitQueue& end, const bool& ending) {
  while (!ending) {
    co_await end.wait();
  }
}

class Service {
 public:
  Service(const Call& call, const Options& options) : call_(call), options_(options) {}

  int run();

 private:
  Result<ServerOptions> server_options();
  Result<std::vector<UniqueFd>> sockets();
  /// From a running server to its end.
  Result<void> serve(Ring& ring, Images images, ServerOptions options, std::vector<UniqueFd> listening);
  int give_up(const Error& error) {
    complain(call_, tool_text(error));
    return 1;
  }

  const Call& call_;
  const Options& options_;
  Daemon daemon_;
  UniqueFd signals_;
  WaitQueue end_;
  bool ending_ = false;
};

Result<ServerOptions> Service::server_options() {
  ServerOptions server;
  server.max_clients = options_.shared;
  if (!options_.tls_creds.empty()) {
    auto credentials = find_credentials(options_.tls_creds, whistler::nbd::TlsSide::kServer);
    if (!credentials) {
      return std::unexpected(credentials.error().within("Failed to get TLS creds"));
    }
    server.tls = std::move(*credentials);
  }
  if (!options_.tls_authz.empty()) {
    auto identity = find_identity(options_.tls_authz);
    if (!identity) {
      return std::unexpected(identity.error());
    }
    server.authorized = std::move(*identity);
  }
  server.log = [this](const std::string& message) { complain(call_, message); };
  server.on_client_left = [this](std::size_t left) {
    if (left == 0 && !options_.persistent) {
      ending_ = true;
      end_.wake_all();
    }
  };
  return server;
}

Result<std::vector<UniqueFd>> Service::sockets() {
  auto given = handed_over();
  if (!given || !given->empty()) {
    return given;
  }
  Address address;
  if (!options_.socket.empty()) {
    address.socket = options_.socket;
  } else {
    address.host = options_.bind.empty() ? "0.0.0.0" : options_.bind;
    address.port = options_.port.empty() ? "10809" : options_.port;
  }
  const bool many = options_.persistent || options_.shared == 0;
  const int backlog = many ? SOMAXCONN : static_cast<int>(std::min<unsigned>(options_.shared, SOMAXCONN));
  return whistler::nbd::listen_on(address, backlog);
}

Result<void> Service::serve(Ring& ring, Images images, ServerOptions options,
                            std::vector<UniqueFd> listening) {
  {
    Server server(ring, images.exports, std::move(options));
    server.listen(std::move(listening));
    Ring::Operation* watching = nullptr;
    spawn(watch_signals(ring, signals_.get(), end_, ending_, watching));
    daemon_.ready();
    sync_wait(ring, wait_for(end_, ending_));
    if (!options_.socket.empty()) {
      ::unlink(options_.socket.c_str());
    }
    if (watching != nullptr) {
      ring.cancel(*watching);
    }
    sync_wait(ring, server.stop());
    while (watching != nullptr) {
      ring.run_once(true);
    }
  }
  return sync_wait(ring, close_images(std::move(images)));
}

int Service::run() {
  auto server = server_options();
  if (!server) {
    return give_up(server.error());
  }
  if (options_.fork) {
    if (const auto status = daemon_.start(options_.verbose)) {
      return *status;
    }
  }
  signals_ = catch_signals();
  auto ring = Ring::create_for_tool();
  if (!ring) {
    return give_up(ring.error());
  }
  auto images = open_images(**ring, options_);
  if (!images) {
    return give_up(images.error());
  }
  auto listening = sockets();
  if (!listening) {
    return give_up(listening.error());
  }
  if (!options_.pid_file.empty()) {
    if (auto ok = write_pid_file(options_.pid_file); !ok) {
      return give_up(ok.error());
    }
  }
  auto served = serve(**ring, std::move(*images), std::move(*server), std::move(*listening));
  return served ? 0 : give_up(served.error());
}

}  // namespace

int serve(const Call& call, const Options& options) {
  Service service(call, options);
  return service.run();
}

}  // namespace whistler::tools::nbd
