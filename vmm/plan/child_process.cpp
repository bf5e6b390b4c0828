#include "vmm/plan/child_process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <utility>

namespace whistler::plan {
namespace {

constexpr int kCannotStart = 127;
constexpr int kSignalled = 128;

/// All that execve() wants, made before fork().
struct Start {
  const char* path;
  char* const* arguments;
  char* const* environment;
  const char* folder;
  int output;
  rlimit largest_file;
};

/// In the new process: only calls that are safe after fork() in a program with threads.
[[noreturn]] void become(const Start& start, pid_t parent) {
  ::setsid();  // a terminal's Ctrl-C is the parent's affair
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int null = ::open("/dev/null", O_RDONLY);
  // The parent may have died before PR_SET_PDEATHSIG.
  if (::getppid() != parent || null < 0 || ::dup2(null, STDIN_FILENO) < 0 ||
      ::dup2(start.output, STDOUT_FILENO) < 0 || ::dup2(start.output, STDERR_FILENO) < 0 ||
      ::chdir(start.folder) != 0 || ::setrlimit(RLIMIT_FSIZE, &start.largest_file) != 0) {
    ::_exit(kCannotStart);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execve(start.path, start.arguments, start.environment);
  ::_exit(kCannotStart);
}

/// Null at the end, as execve() wants it. They point into `words`.
std::vector<char*> pointers_to(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (auto& word : words) {
    pointers.push_back(word.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

/// This program's environment, changed by `changes`.
std::vector<std::string> environment_with(const std::vector<std::string>& changes) {
  auto all = changes;
  for (auto* const* at = environ; *at != nullptr; ++at) {
    const std::string_view own = *at;
    const auto name = own.substr(0, own.find('=') + 1);
    const auto is_changed = [&](const std::string& change) { return change.starts_with(name); };
    if (std::ranges::none_of(changes, is_changed)) {
      all.emplace_back(own);
    }
  }
  return all;
}

rlimit file_limit(std::uint64_t wanted) {
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_cur, wanted);
  limit.rlim_max = std::min<rlim_t>(limit.rlim_max, wanted);
  return limit;
}

}  // namespace

ChildProcess::ChildProcess(pid_t pid)
    : pid_(pid), pidfd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      status_(other.status_),
      signal_(other.signal_) {}

Result<ChildProcess> ChildProcess::start(const std::vector<std::string>& arguments, const std::string& folder,
                                         const std::string& output, const Program& program) {
  const UniqueFd file(::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!file) {
    return fail_errno(errno, output);
  }
  std::vector<std::string> words = {program.name};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const auto pointers = pointers_to(words);
  auto environment = environment_with(program.environment);
  const auto variables = pointers_to(environment);
  const Start start = {.path = program.path.c_str(),
                       .arguments = pointers.data(),
                       .environment = variables.data(),
                       .folder = folder.c_str(),
                       .output = file.get(),
                       .largest_file = file_limit(program.largest_file)};
  const pid_t parent = ::getpid();
  const std::scoped_lock lock(birth());
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail_errno(errno, "a pipe cannot be made");
  }
  const UniqueFd born(ends[0]);
  UniqueFd unborn(ends[1]);  // the child's copy is closed when it is another program, or dead
  const pid_t pid = ::fork();
  if (pid < 0) {
    return fail_errno(errno, "a process cannot be started");
  }
  if (pid == 0) {
    become(start, parent);
  }
  unborn.reset();
  char byte = 0;
  while (::read(born.get(), &byte, 1) < 0 && errno == EINTR) {
  }
  return ChildProcess(pid);
}

std::mutex& ChildProcess::birth() {
  static std::mutex mutex;
  return mutex;
}

std::optional<int> ChildProcess::status() {
  int raw = 0;
  if (!status_ && pid_ > 0 && ::waitpid(pid_, &raw, WNOHANG) == pid_) {
    signal_ = WIFSIGNALED(raw) ? WTERMSIG(raw) : 0;
    status_ = signal_ != 0 ? kSignalled + signal_ : WEXITSTATUS(raw);
  }
  return status_;
}

std::optional<int> ChildProcess::wait(double seconds) {
  constexpr int kLook = 20;  // milliseconds
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!status() && std::chrono::steady_clock::now() < end) {
    pollfd ready{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
    ::poll(&ready, 1, kLook);
  }
  return status_;
}

void ChildProcess::kill() {
  if (pid_ > 0 && !status()) {
    ::kill(pid_, SIGKILL);
    int raw = 0;
    while (::waitpid(pid_, &raw, 0) < 0 && errno == EINTR) {
    }
    signal_ = SIGKILL;
    status_ = kSignalled + SIGKILL;
  }
}

}  // namespace whistler::plan
