#include "vmm/output_path.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/unique_fd.hpp"

namespace whistler {
namespace {

// Whoever has an image open holds locks on some of these bytes (QEMU, block/file-posix.c: RAW_LOCK_PERM_BASE
// 100, RAW_LOCK_SHARED_BASE 200).
constexpr off_t kImageLocks = 100;
constexpr off_t kImageLocksEnd = 300;

bool is_open_image(int fd) {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = kImageLocks;
  lock.l_len = kImageLocksEnd - kImageLocks;
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

}  // namespace

Result<void> check_output_file(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) {
    return errno == ENOENT ? check_parent_folder(path)
                           : fail_errno(errno, fmt::format("{}: cannot be opened for writing", path));
  }
  if (S_ISDIR(info.st_mode)) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: is a directory", path));
  }
  if (::access(path.c_str(), W_OK) != 0) {
    return fail_errno(errno, fmt::format("{}: cannot be opened for writing", path));
  }
  if (S_ISREG(info.st_mode)) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (fd && is_open_image(fd.get())) {
      return fail(ErrorCode::kBusy,
                  fmt::format("{}: is a disk image in use, and would be overwritten", path));
    }
  }
  return {};
}

Result<void> check_parent_folder(const std::string& path) {
  auto folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) {
    folder = ".";
  }
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    return fail_errno(errno, fmt::format("{}: cannot be created", path));
  }
  return {};
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat first{};
  struct stat second{};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

}  // namespace whistler
