#include "devices/vnc/vnc_server.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <list>
#include <thread>

#include "base/log.hpp"
#include "devices/vnc/vnc_address.hpp"
#include "devices/vnc/vnc_client.hpp"
#include "devices/vnc/vnc_listener.hpp"

namespace whistler {
namespace {

constexpr std::size_t kPasswordMax = 8;

/// Threads made while it lives get no signals: those are for the main thread, and a write to a client that
/// has gone must not be deadly.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

class EventFd {
 public:
  EventFd() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~EventFd() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;

  [[nodiscard]] int fd() const { return fd_; }
  void signal() const { ::eventfd_write(fd_, 1); }
  void clear() const {
    eventfd_t count = 0;
    ::eventfd_read(fd_, &count);
  }

 private:
  int fd_;
};

}  // namespace

class VncServer::Impl {
 public:
  Impl(VncConfig config, VncListener listener, VncMachine machine)
      : config_(std::move(config)), listener_(std::move(listener)), machine_(machine) {}

  ~Impl() {
    stop_.signal();
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Result<> start() {
    if (stop_.fd() < 0 || done_.fd() < 0) {
      return fail_errno(errno, "VNC: cannot make an eventfd");
    }
    const SignalsBlocked blocked;
    try {
      thread_ = std::thread([this] { run(); });
    } catch (const std::system_error& error) {
      return fail_errno(error.code().value(), "VNC: cannot start a thread");
    }
    return {};
  }

  [[nodiscard]] const VncListener& listener() const { return listener_; }
  [[nodiscard]] std::size_t clients() const {
    const std::scoped_lock guard(lock_);
    return connections_.size();
  }
  [[nodiscard]] bool asks_password() const {
    const std::scoped_lock guard(lock_);
    return !config_.password.empty();
  }
  void set_password(std::string password) {
    const std::scoped_lock guard(lock_);
    config_.password = std::move(password);
  }

 private:
  struct Connection {
    Connection(int socket, const VncConfig& config, VncMachine machine, int stop_event,
               VncClient::Admit admit)
        : client(socket, config, machine, stop_event, std::move(admit)) {}
    VncClient client;
    std::atomic<bool> finished = false;
    std::thread thread;
  };

  /// The listener's thread: asleep until somebody connects, leaves or stops the server.
  void run() {
    for (;;) {
      std::array<pollfd, 3> fds = {pollfd{stop_.fd(), POLLIN, 0}, pollfd{done_.fd(), POLLIN, 0},
                                   pollfd{listener_.fd, POLLIN, 0}};
      ::poll(fds.data(), fds.size(), -1);
      if (fds[0].revents != 0) {
        break;
      }
      if (fds[1].revents != 0) {
        done_.clear();
        reap();
      }
      if (fds[2].revents != 0) {
        accept_client();
      }
    }
    disconnect_all();
    while (clients() != 0) {
      pollfd done{done_.fd(), POLLIN, 0};
      ::poll(&done, 1, -1);
      done_.clear();
      reap();
    }
  }

  void accept_client() {
    const int socket = ::accept4(listener_.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        pollfd stop{stop_.fd(), POLLIN, 0};  // the connection stays in the queue: do not spin
        ::poll(&stop, 1, 100);
      }
      return;
    }
    LibVnc* const library = LibVnc::get();
    if (library == nullptr || clients() >= kMaxClients) {
      log(LogLevel::kWarning, "VNC: turned a client away");
      ::close(socket);
      return;
    }
    const std::scoped_lock guard(lock_);
    Connection& connection =
        connections_.emplace_back(socket, config_, machine_, stop_.fd(),
                                  [this](VncClient& client, bool shared) { return admit(client, shared); });
    try {
      connection.thread = std::thread([this, &connection, library] {
        connection.client.run(*library);
        connection.finished = true;
        done_.signal();
      });
    } catch (const std::system_error&) {
      log(LogLevel::kWarning, "VNC: turned a client away: no thread for it");
      connections_.pop_back();
    }
  }

  /// Joins the threads of clients that have gone.
  void reap() {
    std::list<Connection> gone;
    {
      const std::scoped_lock guard(lock_);
      for (auto each = connections_.begin(); each != connections_.end();) {
        const auto next = std::next(each);
        if (each->finished) {
          gone.splice(gone.end(), connections_, each);
        }
        each = next;
      }
    }
    for (Connection& connection : gone) {
      connection.thread.join();
    }
  }

  void disconnect_all() {
    const std::scoped_lock guard(lock_);
    for (Connection& connection : connections_) {
      connection.client.disconnect();
    }
  }

  bool admit(VncClient& client, bool shared) {
    const std::scoped_lock guard(lock_);
    const auto is_other = [&](const Connection& each) {
      return &each.client != &client && each.client.joined() && !each.finished;
    };
    if (config_.share == VncShare::kNever && std::ranges::any_of(connections_, is_other)) {
      log(LogLevel::kInfo, "VNC: refused a second client");
      return false;
    }
    if (config_.share == VncShare::kOnRequest && !shared) {
      for (Connection& each : connections_) {
        if (is_other(each)) {
          each.client.disconnect();
        }
      }
    }
    client.join();
    return true;
  }

  VncConfig config_;  // its password under lock_
  VncListener listener_;
  VncMachine machine_;
  EventFd stop_;  ///< readable for good once the server stops
  EventFd done_;  ///< a client's thread has finished
  mutable std::mutex lock_;
  std::list<Connection> connections_;
  std::thread thread_;
};

namespace {

Result<void> check_password(const std::string& password) {
  if (password.size() > kPasswordMax) {
    return fail(ErrorCode::kInvalid,
                fmt::format("VNC: the password has {} bytes, but VNC knows no more than {}; shorten it",
                            password.size(), kPasswordMax));
  }
  if (password.find('\0') != std::string::npos) {
    return fail(ErrorCode::kInvalid, "VNC: the password has a zero byte in it");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<VncServer>> VncServer::start(const VncConfig& config, DisplaySource& display,
                                                    InputSink& input, std::mutex& machine_lock) {
  if (auto sound = check_password(config.password); !sound) {
    return std::unexpected(sound.error());
  }
  auto listener = vnc_listen(config.listen, config.port);
  if (!listener) {
    return std::unexpected(listener.error());
  }
  auto impl = std::make_unique<Impl>(config, std::move(*listener), VncMachine{display, input, machine_lock});
  if (auto started = impl->start(); !started) {
    return std::unexpected(started.error());
  }
  return std::unique_ptr<VncServer>(new VncServer(std::move(impl)));
}

VncServer::VncServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
VncServer::~VncServer() = default;

unsigned VncServer::port() const { return impl_->listener().port; }
const std::string& VncServer::address() const { return impl_->listener().address; }
Result<void> VncServer::set_password(std::string password) {
  auto sound = check_password(password);
  if (sound) {
    impl_->set_password(std::move(password));
  }
  return sound;
}

VncAddress VncServer::local() const { return local_address(impl_->listener().fd); }
bool VncServer::asks_password() const { return impl_->asks_password(); }
std::size_t VncServer::clients() const { return impl_->clients(); }

}  // namespace whistler
