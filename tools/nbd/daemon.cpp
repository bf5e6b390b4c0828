#include "tools/nbd/daemon.hpp"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

namespace whistler::tools::nbd {

namespace {

/// Copies what the child says to our standard error until it closes its end. True if it said something.
bool pass_on(int from) {
  std::array<char, 1024> text{};
  bool any = false;
  for (;;) {
    const auto got = ::read(from, text.data(), text.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return any;
    }
    any = true;
    std::fwrite(text.data(), 1, static_cast<std::size_t>(got), stderr);
  }
}

}  // namespace

std::optional<int> Daemon::start(bool keep_errors) {
  std::array<int, 2> ends{};
  std::fflush(nullptr);
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    std::perror("pipe");
    return 1;
  }
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) {
    std::perror("Failed to fork");
    return 1;
  }
  if (child > 0) {
    write_end.reset();
    return pass_on(read_end.get()) ? 1 : 0;
  }
  ::setsid();
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  later_errors_ = UniqueFd(::fcntl(keep_errors ? STDERR_FILENO : null.get(), F_DUPFD_CLOEXEC, 3));
  ::dup2(null.get(), STDIN_FILENO);
  ::dup2(null.get(), STDOUT_FILENO);
  ::dup2(write_end.get(), STDERR_FILENO);
  return std::nullopt;
}

void Daemon::ready() {
  if (later_errors_) {
    std::fflush(stderr);
    ::dup2(later_errors_.get(), STDERR_FILENO);
    later_errors_.reset();
  }
}

}  // namespace whistler::tools::nbd
