#include "vmm/qtest/qtest_machine.hpp"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "vmm/qtest/qtest_protocol.hpp"
#include "vmm/unix_socket.hpp"

namespace whistler {
namespace {

constexpr std::size_t kLongestLine = 2 * QtestProtocol::kMostBytes + 4096;

class QtestMachine {
 public:
  explicit QtestMachine(Description description)
      : pc_(std::move(description), clock_, stopped_,
            {.reset = [this] { pc_.loop().post([this] { reset(); }); },
             .power_off = [this] { outcome_ = {kExitPoweredOff, "the guest powered off"}; },
             .exit = [this](int status) { outcome_ = {status & 0xFF, "the exit port was written"}; },
             .disk_full = [](const Error&) {}}) {}

  Outcome run(const std::string& endpoint) {
    if (auto opened = pc_.open(); !opened) {
      return {kExitUsage, opened.error().message};
    }
    {
      std::scoped_lock lock(pc_.lock());
      if (auto built = pc_.build({.gsis = &irqs_, .slots = nullptr}); !built) {
        return {kExitUsage, built.error().message};
      }
    }
    if (auto started = pc_.start(); !started) {
      return {kExitUsage, started.error().message};
    }
    protocol_.emplace(pc_.ports(), pc_.memory(), clock_, pc_.timers(), irqs_);
    if (auto connected = connect(endpoint); !connected) {
      return {kExitUsage, connected.error().message};
    }
    watch_signals();
    while (!outcome_) {
      pc_.loop().run_once(-1);
    }
    pc_.stop_vnc();
    std::scoped_lock lock(pc_.lock());
    pc_.space().give_up();
    pc_.drain();
    pc_.close_drives();
    pc_.flush_streams();
    return *outcome_;
  }

 private:
  Result<void> connect(const std::string& endpoint) {
    constexpr std::string_view kUnix = "unix:";
    if (!endpoint.starts_with(kUnix)) {
      return fail(
          ErrorCode::kInvalid,
          fmt::format("--qtest {}: must be unix:PATH (connects) or unix:PATH,server (listens)", endpoint));
    }
    const auto comma = endpoint.find(',');
    path_ = endpoint.substr(kUnix.size(), comma == std::string::npos ? comma : comma - kUnix.size());
    const auto options = comma == std::string::npos ? std::string() : endpoint.substr(comma);
    if (options.find("server") != std::string::npos && options.find("server=off") == std::string::npos) {
      auto listener = listen_unix(path_);
      if (!listener) {
        return std::unexpected(listener.error().within("--qtest"));
      }
      listener_ = std::move(*listener);
      std::scoped_lock lock(pc_.lock());
      pc_.loop().watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept_client(); });
      return {};
    }
    auto client = connect_unix(path_);
    if (!client) {
      return std::unexpected(client.error().within("--qtest"));
    }
    std::scoped_lock lock(pc_.lock());
    serve(std::move(*client));
    return {};
  }

  void watch_signals() {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    signals_ = UniqueFd(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    std::scoped_lock lock(pc_.lock());
    pc_.loop().watch(signals_.get(), EPOLLIN,
                     [this](std::uint32_t) { outcome_ = {0, "stopped by a signal"}; });
    pc_.loop().watch(pc_.ring().fd(), EPOLLIN, [this](std::uint32_t) { pc_.ring().run_once(false); });
  }

  void accept_client() {
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (client) {
      hang_up();
      serve(std::move(client));
    }
  }

  void serve(UniqueFd client) {
    client_ = std::move(client);
    input_.clear();
    pc_.loop().watch(client_.get(), EPOLLIN, [this](std::uint32_t) { read_commands(); });
  }

  void hang_up() {
    if (client_) {
      pc_.loop().unwatch(client_.get());
      client_.reset();
    }
  }

  void read_commands() {
    std::array<char, 65536> buffer{};
    const auto got = ::read(client_.get(), buffer.data(), buffer.size());
    if (got <= 0 || input_.size() > kLongestLine) {
      hang_up();
      if (!listener_) {
        outcome_ = {0, "the qtest client has gone"};
      }
      return;
    }
    const auto seen = input_.size();  // has no end of line
    input_.append(buffer.data(), static_cast<std::size_t>(got));
    std::size_t begin = 0;
    for (auto end = input_.find('\n', seen); end != std::string::npos; end = input_.find('\n', begin)) {
      // Let completed disk requests be seen by this command, as they would by a CPU's access.
      pc_.ring().run_once(false);
      send(protocol_->execute(std::string_view(input_).substr(begin, end - begin)));
      begin = end + 1;
    }
    input_.erase(0, begin);
  }

  void send(std::string_view text) {
    while (client_ && !text.empty()) {
      const auto sent = ::send(client_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno != EINTR) {
        return;
      }
      text.remove_prefix(sent > 0 ? static_cast<std::size_t>(sent) : 0);
    }
  }

  void reset() {
    pc_.drain();
    pc_.board().reset();
  }

  ManualClock clock_;
  HostClock stopped_;  // the loop's: qtest time moves only by command
  HostedPc pc_;
  QtestIrqs irqs_{[this](std::string_view text) { send(text); }};
  std::optional<QtestProtocol> protocol_;
  std::optional<Outcome> outcome_;
  UniqueFd listener_, client_, signals_;
  std::string path_, input_;
};

}  // namespace

Outcome run_qtest(Description description, const std::string& endpoint) {
  QtestMachine machine(std::move(description));
  return machine.run(endpoint);
}

}  // namespace whistler
