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
#include <utility>

#include "vmm/output_path.hpp"
#include "vmm/unix_socket.hpp"

namespace whistler {
namespace {

constexpr std::size_t kMostPending = 64 * 1024;
constexpr std::size_t kMostAhead = 4096;
constexpr std::size_t kGathered = 512;
constexpr Nanoseconds kGatherTime = 2'000'000;

}  // namespace

HostStream::HostStream(EventLoop& loop, TimerQueue& timers)
    : loop_(loop), flush_timer_(timers, [this] { flush(); }) {}

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
  update_watches();
}

void HostStream::detach_input() {
  set_watch(in_, in_events_, 0);
  in_ = -1;
  update_watches();
}

void HostStream::detach() {
  pending_.clear();
  set_watch(in_, in_events_, 0);
  set_watch(out_, out_events_, 0);
  in_ = out_ = -1;
}

void HostStream::update_watches() {
  const bool want_in = in_ >= 0 && (incoming_.empty() || reads_ahead());
  const bool want_out = out_ >= 0 && !pending_.empty();
  const std::uint32_t in = want_in ? EPOLLIN : 0U;
  const std::uint32_t out = want_out ? EPOLLOUT : 0U;
  const bool shared = in_ == out_;
  set_watch(in_, in_events_, shared ? in | out : in);
  set_watch(out_, out_events_, shared ? 0U : out);
}

void HostStream::set_watch(int fd, std::uint32_t& current, std::uint32_t wanted) {
  if (fd < 0 || current == wanted) {
    return;
  }
  current = wanted;
  // Not watched at all rather than for nothing: a hang-up would be reported without end.
  if (wanted == 0) {
    loop_.unwatch(fd);
  } else {
    loop_.watch(fd, wanted, [this, fd](std::uint32_t events) { on_ready(fd, events); });
  }
}

void HostStream::on_ready(int fd, std::uint32_t events) {
  if (fd == out_ && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
    flush();
  }
  if (fd == in_ && (in_events_ & EPOLLIN) != 0 && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) {
    read_input();
  }
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
    const int error = written < 0 ? errno : EIO;
    if (written > 0) {
      done += static_cast<std::size_t>(written);
    } else if (error == EAGAIN) {
      break;  // the reader is slow: update_watches() sees to it that this goes on when it has room
    } else if (error != EINTR) {
      done = pending_.size();  // the reader is gone, or the disk is full: nobody takes these bytes
    }
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(done));
  update_watches();
}

void HostStream::read_input() {
  std::array<std::uint8_t, 256> buffer{};
  const auto got = ::read(in_, buffer.data(), buffer.size());
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
    on_hangup();
    return;
  }
  for (std::ptrdiff_t i = 0; i < got; ++i) {
    const auto byte = buffer[static_cast<std::size_t>(i)];
    if (admit(byte) && incoming_.size() < kMostAhead) {
      incoming_.push_back(byte);
    }
  }
  pass_on();
}

void HostStream::pass_on() {
  const auto room = receiver_ != nullptr ? receiver_->room() : incoming_.size();
  const auto count = std::min(room, incoming_.size());
  if (count != 0) {
    const auto end = incoming_.begin() + static_cast<std::ptrdiff_t>(count);
    const std::vector<std::uint8_t> piece(incoming_.begin(), end);
    incoming_.erase(incoming_.begin(), end);
    if (receiver_ != nullptr) {
      receiver_->receive(piece);
    }
  }
  update_watches();
}

namespace {

class StdioStream final : public HostStream {
 public:
  StdioStream(EventLoop& loop, TimerQueue& timers, StdioInput input)
      : HostStream(loop, timers), use_input_(input == StdioInput::kUse) {}
  ~StdioStream() override {
    flush();
    detach();
    if (raw_) {
      ::tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_);
    }
  }

  Result<void> open() override {
    // Descriptions of our own, so that O_NONBLOCK does not reach the shell that shares the terminal.
    struct stat info{};
    const bool file = ::fstat(STDOUT_FILENO, &info) == 0 && S_ISREG(info.st_mode);
    output_ = UniqueFd(file ? ::dup(STDOUT_FILENO)
                            : ::open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!output_) {
      output_ = UniqueFd(::dup(STDOUT_FILENO));
    }
    attach(use_input_ ? open_input() : -1, output_.get());
    return {};
  }

 private:
  /// The descriptor to read, or -1 where there is nothing a guest could be waiting for.
  int open_input() {
    if (::isatty(STDIN_FILENO) != 0 && ::tcgetattr(STDIN_FILENO, &saved_) == 0) {
      termios raw = saved_;
      ::cfmakeraw(&raw);
      raw.c_oflag |= OPOST;  // line feeds of the guest still return the carriage
      raw_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
    input_ = UniqueFd(::open("/proc/self/fd/0", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    struct stat info{};
    const bool readable = input_ && ::fstat(input_.get(), &info) == 0 && !S_ISREG(info.st_mode) &&
                          !S_ISDIR(info.st_mode) && !(S_ISCHR(info.st_mode) && !raw_);
    return readable ? input_.get() : -1;
  }

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
  /// So that Ctrl-A x works when the guest has stopped listening.
  [[nodiscard]] bool reads_ahead() const override { return raw_; }
  void on_hangup() override { detach_input(); }

  bool use_input_;
  UniqueFd input_, output_;
  termios saved_{};
  bool raw_ = false;
  bool escaped_ = false;
};

class FileStream final : public HostStream {
 public:
  FileStream(EventLoop& loop, TimerQueue& timers, std::string path)
      : HostStream(loop, timers), path_(std::move(path)) {}
  ~FileStream() override {
    flush();
    detach();
  }
  Result<void> check() const override { return check_output_file(path_); }
  Result<void> open() override {
    // Opening a FIFO without a reader would wait for ever.
    fd_ = UniqueFd(
        ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644));
    if (!fd_) {
      return fail_errno(errno, fmt::format("{}: cannot be opened for writing", path_));
    }
    attach(-1, fd_.get());
    return {};
  }

 private:
  std::string path_;
  UniqueFd fd_;
};

class PtyStream final : public HostStream {
 public:
  using HostStream::HostStream;
  ~PtyStream() override {
    flush();
    detach();
  }
  Result<void> open() override {
    master_ = UniqueFd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    std::array<char, 64> path{};
    if (!master_ || ::grantpt(master_.get()) != 0 || ::unlockpt(master_.get()) != 0 ||
        ::ptsname_r(master_.get(), path.data(), path.size()) != 0) {
      return fail_errno(errno, "pty: cannot be made");
    }
    path_ = path.data();
    // Kept open, so that the master never reports a hang-up while nobody is there.
    slave_ = UniqueFd(::open(path.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    termios raw{};
    if (slave_ && ::tcgetattr(slave_.get(), &raw) == 0) {
      ::cfmakeraw(&raw);
      ::tcsetattr(slave_.get(), TCSANOW, &raw);
    }
    attach(master_.get(), master_.get());
    return {};
  }
  std::string address() const override { return path_; }

 private:
  UniqueFd master_, slave_;
  std::string path_;
};

class UnixStream final : public HostStream {
 public:
  UnixStream(EventLoop& loop, TimerQueue& timers, std::string path)
      : HostStream(loop, timers), path_(std::move(path)) {}
  ~UnixStream() override {
    flush();
    detach();
    if (listener_) {
      loop().unwatch(listener_.get());
      ::unlink(path_.c_str());
    }
  }
  Result<void> check() const override { return check_unix_path(path_); }
  Result<void> open() override {
    auto listener = listen_unix(path_);
    if (!listener) {
      return std::unexpected(listener.error());
    }
    listener_ = std::move(*listener);
    loop().watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept_client(); });
    return {};
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
  std::string path_;
  UniqueFd listener_, client_;
};

}  // namespace

std::unique_ptr<HostStream> make_stdio_stream(EventLoop& loop, TimerQueue& timers, StdioInput input) {
  return std::make_unique<StdioStream>(loop, timers, input);
}

std::unique_ptr<HostStream> make_file_stream(EventLoop& loop, TimerQueue& timers, std::string path) {
  return std::make_unique<FileStream>(loop, timers, std::move(path));
}

std::unique_ptr<HostStream> make_pty_stream(EventLoop& loop, TimerQueue& timers) {
  return std::make_unique<PtyStream>(loop, timers);
}

std::unique_ptr<HostStream> make_unix_stream(EventLoop& loop, TimerQueue& timers, std::string path) {
  return std::make_unique<UnixStream>(loop, timers, std::move(path));
}

}  // namespace whistler
