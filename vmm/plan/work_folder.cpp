#include "vmm/plan/work_folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>
#include <utility>

namespace whistler::plan {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestPath = 70;  // a socket's path has 107 bytes

/// The folder, locked if nobody has it.
UniqueFd try_lock(const fs::path& folder) {
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    fd.reset();
  }
  return fd;
}

/// Removes what runs have left that were killed with their guards.
void sweep(const fs::path& parent) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    if (const auto lock = try_lock(entry.path())) {
      std::error_code ignored;
      fs::remove_all(entry.path(), ignored);
    }
  }
}

/// The guard: waits until the other end of `life` is closed, then removes `folder`.
[[noreturn]] void guard(int life, const std::string& folder) {
  ::setsid();
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) {
    std::signal(number, SIG_IGN);
  }
  // Whoever reads the run's output must not wait for the guard.
  const int null = ::open("/dev/null", O_RDWR);
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    ::dup2(null, standard);
  }
  char byte = 0;
  while (::read(life, &byte, 1) < 0 && errno == EINTR) {
  }
  // Machines are being killed at the same moment and may still create a file.
  constexpr int kAttempts = 20;
  for (int i = 0; i < kAttempts && fs::exists(folder); ++i) {
    std::error_code error;
    fs::remove_all(folder, error);
    std::this_thread::sleep_for(std::chrono::milliseconds(i * 10));
  }
  ::_exit(0);
}

}  // namespace

Result<WorkFolder> WorkFolder::create() {
  std::error_code error;
  const auto base = fs::temp_directory_path(error);
  if (error) {
    return fail(ErrorCode::kNotFound, "there is no folder for temporary files; set TMPDIR to one");
  }
  const auto parent = base / fmt::format("whistler-test-{}", ::getuid());
  ::mkdir(parent.c_str(), 0700);
  struct stat info{};
  if (::lstat(parent.c_str(), &info) != 0) {
    return fail_errno(errno, parent.string());
  }
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::getuid() || (info.st_mode & 077) != 0) {
    return fail(ErrorCode::kPermission,
                fmt::format("{}: is not a folder that only this user can use; remove it, or set TMPDIR to "
                            "another place",
                            parent.string()));
  }
  // Held while folders are made and swept, so that no run sweeps the folder another is just making.
  UniqueFd turn(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!turn || ::flock(turn.get(), LOCK_EX) != 0) {
    return fail_errno(errno, parent.string());
  }
  sweep(parent);
  std::string path = (parent / "run-XXXXXX").string();
  if (::mkdtemp(path.data()) == nullptr) {
    return fail_errno(errno, path);
  }
  auto lock = try_lock(path);
  WorkFolder folder(path, std::move(lock));
  if (path.size() > kLongestPath) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: is too long for sockets; set TMPDIR to a shorter path", path));
  }
  turn.reset();  // the guard would hold it as long as it lives
  if (auto started = folder.start_guard(); !started) {
    return std::unexpected(started.error());
  }
  return folder;
}

Result<void> WorkFolder::start_guard() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail_errno(errno, "a pipe cannot be made");
  }
  const UniqueFd read_end(ends[0]);
  life_ = UniqueFd(ends[1]);
  guard_ = ::fork();
  if (guard_ < 0) {
    return fail_errno(errno, "a process cannot be started");
  }
  if (guard_ == 0) {
    life_.reset();
    guard(read_end.get(), path_);
  }
  return {};
}

WorkFolder::WorkFolder(WorkFolder&& other) noexcept
    : path_(std::exchange(other.path_, {})),
      lock_(std::move(other.lock_)),
      life_(std::move(other.life_)),
      guard_(std::exchange(other.guard_, -1)) {}

WorkFolder::~WorkFolder() {
  if (path_.empty()) {
    return;
  }
  if (guard_ > 0) {
    life_.reset();
    while (::waitpid(guard_, nullptr, 0) < 0 && errno == EINTR) {
    }
  } else {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
}

}  // namespace whistler::plan
