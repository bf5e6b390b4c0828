#include "vmm/char_backends.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "vmm/unix_socket.hpp"

namespace whistler {
namespace {

constexpr std::size_t kMostPending = 64 * 1024;
constexpr std::size_t kGathered = 512;
constexpr Nanoseconds kGatherTime = 2'000'000;

}  // namespace

HostStream::HostStream(EventLoop& loop, TimerQueue& timers) : loop_(loop), flush_timer_(timers, [this] { flush(); }) {}

HostStream::~HostStream() {
  flush();
  detach();
}

void HostStream::connect(CharReceiver* receiver) {
  receiver_ = receiver;
  if (receiver != nullptr) {
    receiver->on_room([this] { loop_.post([this] { pass_on(); }); });
  }
}

void HostStream::attach(int in, int out) {
  in_ = in;
  out_ = out;
  if (in_ >= 0) {
    loop_.watch(in_, EPOLLIN, [this](std::uint32_t) { read_input(); });
  }
}

void HostStream::detach() {
  if (in_ >= 0) {
    loop_.unwatch(in_);
  }
  if (watching_out_ && out_ != in_) {
    loop_.unwatch(out_);
  }
  in_ = out_ = -1;
  watching_out_ = false;
  pending_.clear();
}

void HostStream::send(std::uint8_t byte) {
  if (out_ < 0 || pending_.size() >= kMostPending) {
    return;
  }
  pending_.push_back(byte);
  if (byte == '\n' || pending_.size() == kGathered) {
    flush();
  } else if (!flush_timer_.armed()) {
    flush_timer_.arm_after(kGatherTime);
  }
}

void HostStream::flush() {
  flush_timer_.cancel();
  std::size_t done = 0;
  while (out_ >= 0 && done < pending_.size()) {
    const auto written = ::write(out_, &pending_[done], pending_.size() - done);
    if (written > 0) {
      done += static_cast<std::size_t>(written);
    } else if (errno != EINTR) {
      break;
    }
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(done));
  if (out_ < 0) {
    return;
  }
  // The reader is slow: go on when it has room. A descriptor used both ways keeps its watch for input.
  const bool want = !pending_.empty();
  if (want != watching_out_) {
    watching_out_ = want;
    if (out_ == in_) {
      loop_.watch(in_, want ? EPOLLIN | EPOLLOUT : EPOLLIN, [this](std::uint32_t events) {
        if ((events & EPOLLOUT) != 0) {
          flush();
        }
        if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) {
          read_input();
        }
      });
    } else if (want) {
      loop_.watch(out_, EPOLLOUT, [this](std::uint32_t) { flush(); });
    } else {
      loop_.unwatch(out_);
    }
  }
}

void HostStream::read_input() {
  std::array<std::uint8_t, 256> buffer{};
  const auto got = ::read(in_, buffer.data(), buffer.size());
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
    on_hangup();
    return;
  }
  if (got > 0) {
    std::copy_if(buffer.begin(), buffer.begin() + got, std::back_inserter(incoming_), [this](std::uint8_t byte) { return admit(byte); });
    pass_on();
  }
}

void HostStream::pass_on() {
  const auto room = receiver_ != nullptr ? receiver_->room() : incoming_.size();
  const auto count = std::min(room, incoming_.size());
  if (count != 0) {
    const std::vector<std::uint8_t> piece(incoming_.begin(), incoming_.begin() + static_cast<std::ptrdiff_t>(count));
    incoming_.erase(incoming_.begin(), incoming_.begin() + static_cast<std::ptrdiff_t>(count));
    if (receiver_ != nullptr) {
      receiver_->receive(piece);
    }
  }
  // While the guest is behind, leave input where it is: the sender feels the pressure.
  if (in_ >= 0) {
    const bool full = !incoming_.empty();
    const std::uint32_t events = (full ? 0U : EPOLLIN) | (watching_out_ && out_ == in_ ? EPOLLOUT : 0U);
    loop_.watch(in_, events, [this](std::uint32_t ready) {
      if ((ready & EPOLLOUT) != 0) {
        flush();
      }
      if ((ready & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0 && incoming_.empty()) {
        read_input();
      } else if ((ready & (EPOLLHUP | EPOLLERR)) != 0) {
        on_hangup();
      }
    });
  }
}

namespace {

class StdioStream final : public HostStream {
 public:
  StdioStream(EventLoop& loop, TimerQueue& timers) : HostStream(loop, timers) {
    // Descriptions of our own, so that O_NONBLOCK does not reach the shell that shares the terminal.
    input_ = UniqueFd(::open("/proc/self/fd/0", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    struct stat info {};
    const bool file = ::fstat(STDOUT_FILENO, &info) == 0 && S_ISREG(info.st_mode);
    output_ = UniqueFd(file ? ::dup(STDOUT_FILENO) : ::open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    if (!output_) {
      output_ = UniqueFd(::dup(STDOUT_FILENO));
    }
    if (::isatty(STDIN_FILENO) != 0 && ::tcgetattr(STDIN_FILENO, &saved_) == 0) {
      termios raw = saved_;
      ::cfmakeraw(&raw);
      raw.c_oflag |= OPOST;  // line feeds of the guest still return the carriage
      raw_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
    struct stat input_info {};
    const bool readable = input_ && ::fstat(input_.get(), &input_info) == 0 && !S_ISREG(input_info.st_mode) &&
                          !(S_ISCHR(input_info.st_mode) && !raw_);
    attach(readable ? input_.get() : -1, output_.get());
  }
  ~StdioStream() override {
    flush();
    detach();
    if (raw_) {
      ::tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_);
    }
  }

 private:
  UniqueFd input_, output_;
  bool admit(std::uint8_t byte) override {
    constexpr std::uint8_t kControlA = 1;
    if (!raw_) {
      return true;
    }
    if (std::exchange(escaped_, false)) {
      if (byte == 'x') {
        ::raise(SIGTERM);
      }
      return byte == kControlA;
    }
    escaped_ = byte == kControlA;
    return !escaped_;
  }

  termios saved_{};
  bool raw_ = false;
  bool escaped_ = false;
};

class OwnedStream : public HostStream {
 public:
  OwnedStream(EventLoop& loop, TimerQueue& timers, UniqueFd fd, bool input) : HostStream(loop, timers), fd_(std::move(fd)) {
    attach(input ? fd_.get() : -1, fd_.get());
  }
  ~OwnedStream() override {
    flush();
    detach();
  }

 private:
  UniqueFd fd_;
};

/// Keeps its own end of the slave open, so that the master never reports a hang-up while nobody is there.
class PtyStream final : public OwnedStream {
 public:
  PtyStream(EventLoop& loop, TimerQueue& timers, UniqueFd master, UniqueFd slave)
      : OwnedStream(loop, timers, std::move(master), true), slave_(std::move(slave)) {}

 private:
  UniqueFd slave_;
};

class UnixStream final : public HostStream {
 public:
  UnixStream(EventLoop& loop, TimerQueue& timers, UniqueFd listener, std::string path)
      : HostStream(loop, timers), listener_(std::move(listener)), path_(std::move(path)) {
    loop.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept_client(); });
  }
  ~UnixStream() override {
    flush();
    detach();
    loop().unwatch(listener_.get());
    ::unlink(path_.c_str());
  }

 private:
  void accept_client() {
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (client) {
      detach();  // the newest client gets the line
      client_ = std::move(client);
      attach(client_.get(), client_.get());
    }
  }
  void on_hangup() override {
    detach();
    client_.reset();
  }
  UniqueFd listener_, client_;
  std::string path_;
};

}  // namespace

std::unique_ptr<HostStream> make_stdio_stream(EventLoop& loop, TimerQueue& timers) {
  return std::make_unique<StdioStream>(loop, timers);
}

Result<std::unique_ptr<HostStream>> make_file_stream(EventLoop& loop, TimerQueue& timers, const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644));
  if (!fd) {
    return fail_errno(errno, fmt::format("{}: cannot be opened for writing", path));
  }
  return std::make_unique<OwnedStream>(loop, timers, std::move(fd), false);
}

Result<std::unique_ptr<HostStream>> make_pty_stream(EventLoop& loop, TimerQueue& timers, std::string& name) {
  UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  std::array<char, 64> path{};
  if (!master || ::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0 ||
      ::ptsname_r(master.get(), path.data(), path.size()) != 0) {
    return fail_errno(errno, "pty: cannot be made");
  }
  UniqueFd slave(::open(path.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  termios raw{};
  if (slave && ::tcgetattr(slave.get(), &raw) == 0) {
    ::cfmakeraw(&raw);
    ::tcsetattr(slave.get(), TCSANOW, &raw);
  }
  name = path.data();
  return std::make_unique<PtyStream>(loop, timers, std::move(master), std::move(slave));
}

Result<std::unique_ptr<HostStream>> make_unix_stream(EventLoop& loop, TimerQueue& timers, const std::string& path) {
  auto listener = listen_unix(path);
  if (!listener) {
    return std::unexpected(listener.error());
  }
  return std::make_unique<UnixStream>(loop, timers, std::move(*listener), path);
}

}  // namespace whistler
