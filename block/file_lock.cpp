#include "block/file_lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>
#include <thread>

#include "base/log.hpp"

namespace whistler {

namespace {

constexpr off_t kHeldBase = 100;
constexpr off_t kWithheldBase = 200;
constexpr unsigned kPermissions = 4;
constexpr std::chrono::milliseconds kAgain{20};

struct flock one_byte(short type, off_t at) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return lock;
}

/// "pid 123 (qemu-system-x86)" of a process other than this that has the file open and locked, or "". An
/// open-file lock names no owner, but the owner's fdinfo lists it. Only ever run on the way to an error.
std::string find_holder(int fd) {
  struct stat wanted{};
  if (::fstat(fd, &wanted) != 0) {
    return "";
  }
  std::error_code error;
  for (const auto& process : std::filesystem::directory_iterator("/proc", error)) {
    const auto pid_text = process.path().filename().string();
    int pid = 0;
    const auto [end, bad] = std::from_chars(pid_text.data(), pid_text.data() + pid_text.size(), pid);
    if (bad != std::errc{} || end != pid_text.data() + pid_text.size()) {
      continue;
    }
    std::error_code unreadable;
    for (const auto& entry : std::filesystem::directory_iterator(process.path() / "fd", unreadable)) {
      struct stat found{};
      if (::stat(entry.path().c_str(), &found) != 0 || found.st_ino != wanted.st_ino ||
          found.st_dev != wanted.st_dev) {
        continue;
      }
      if (pid == ::getpid() && entry.path().filename() == std::to_string(fd)) {
        continue;
      }
      std::ifstream info(process.path() / "fdinfo" / entry.path().filename());
      bool locked = false;
      for (std::string line; std::getline(info, line);) {
        locked = locked || line.starts_with("lock:");
      }
      if (locked) {
        std::string name;
        std::getline(std::ifstream(process.path() / "comm"), name);
        return fmt::format("pid {} ({})", pid, name);
      }
    }
  }
  return "";
}

std::unexpected<Error> in_use(int fd, const std::string& path, const struct flock& lock,
                              std::string_view doing, std::string_view wanted) {
  std::string holder = lock.l_pid > 0 ? fmt::format("pid {}", lock.l_pid) : find_holder(fd);
  if (holder.empty()) {
    holder = "another process";
  }
  return fail(ErrorCode::kBusy,
              fmt::format("{}: the image is in use: {} {}; close it there first", path, holder, doing),
              fmt::format("Failed to {}\nIs another process using the image [{}]?", wanted, path));
}

constexpr std::array<std::string_view, kPermissions> kHolds = {"is reading it", "is writing to it",
                                                               "is writing to it", "is changing its size"};
constexpr std::array<std::string_view, kPermissions> kWithholds = {
    "lets nobody read it", "lets nobody else write to it", "lets nobody else write to it",
    "lets nobody change its size"};

constexpr std::array<std::string_view, kPermissions> kPermissionNames = {"consistent read", "write",
                                                                         "write unchanged", "resize"};

Result<void> try_lock(int fd, const std::string& path, std::uint8_t held, std::uint8_t withheld) {
  for (unsigned n = 0; n < kPermissions; ++n) {
    for (const auto& [mask, base] : {std::pair{held, kHeldBase}, std::pair{withheld, kWithheldBase}}) {
      auto lock = one_byte(F_RDLCK, base + static_cast<off_t>(n));
      if ((mask >> n & 1) == 0 || ::fcntl(fd, F_OFD_SETLK, &lock) == 0) {
        continue;
      }
      if (errno == EAGAIN || errno == EACCES) {
        return in_use(fd, path, one_byte(F_RDLCK, 0), "holds it exclusively",
                      fmt::format("lock byte {}", base + static_cast<off_t>(n)));
      }
      log_once(LogLevel::kWarning, "image-lock:" + path,
               fmt::format(
                   "{}: the file system offers no locks ({}): nothing keeps a second program off this image",
                   path, std::generic_category().message(errno)));
      return {};
    }
  }
  for (unsigned n = 0; n < kPermissions; ++n) {
    auto lock = one_byte(F_WRLCK, kWithheldBase + static_cast<off_t>(n));
    if ((held >> n & 1) != 0 && ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) {
      return in_use(fd, path, lock, kWithholds[n], fmt::format("get \"{}\" lock", kPermissionNames[n]));
    }
    lock = one_byte(F_WRLCK, kHeldBase + static_cast<off_t>(n));
    if ((withheld >> n & 1) != 0 && ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) {
      return in_use(fd, path, lock, kHolds[n], fmt::format("get shared \"{}\" lock", kPermissionNames[n]));
    }
  }
  return {};
}

}  // namespace

Result<void> lock_image(int fd, const std::string& path, std::uint8_t held, std::uint8_t withheld,
                        std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (true) {
    auto locked = try_lock(fd, path, held, withheld);
    const bool taken = !locked && locked.error().code == ErrorCode::kBusy;
    if (taken) {
      unlock_image(fd);  // some of them may be held: others must not wait for those
    }
    if (!taken || std::chrono::steady_clock::now() >= deadline || !find_holder(fd).empty()) {
      return locked;
    }
    std::this_thread::sleep_for(kAgain);
  }
}

void unlock_image(int fd) {
  auto all = one_byte(F_UNLCK, kHeldBase);
  all.l_len = kWithheldBase + kPermissions - kHeldBase;
  static_cast<void>(::fcntl(fd, F_OFD_SETLK, &all));  // it fails where there are no locks
}

}  // namespace whistler
