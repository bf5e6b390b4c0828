#include "vmm/unix_socket.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "vmm/output_path.hpp"

namespace whistler {
namespace {

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: a socket's path has 1 to {} bytes", path, sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<UniqueFd> connect_to(const sockaddr_un& address, const std::string& path, int flags) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, fmt::format("{}: cannot connect", path));
  }
  return fd;
}

}  // namespace

Result<UniqueFd> connect_unix(const std::string& path) {
  const auto address = address_of(path);
  if (!address) {
    return std::unexpected(address.error());
  }
  return connect_to(*address, path, 0);
}

Result<void> check_unix_path(const std::string& path) {
  if (const auto address = address_of(path); !address) {
    return std::unexpected(address.error());
  }
  struct stat info{};
  if (::lstat(path.c_str(), &info) == 0 && !S_ISSOCK(info.st_mode)) {
    return fail(ErrorCode::kExists, fmt::format("{}: exists and is not a socket; name another path", path));
  }
  return check_parent_folder(path);
}

Result<UniqueFd> listen_unix(const std::string& path) {
  if (auto possible = check_unix_path(path); !possible) {
    return std::unexpected(possible.error());
  }
  const auto address = address_of(path);
  struct stat info{};
  if (::lstat(path.c_str(), &info) == 0) {
    // Without waiting: a listener whose queue is full (EAGAIN) lives, too.
    const auto answer = connect_to(*address, path, SOCK_NONBLOCK);
    if (answer || answer.error().sys_errno == EAGAIN) {
      return fail(ErrorCode::kBusy, fmt::format("{}: another program listens on this socket", path));
    }
    ::unlink(path.c_str());
  }
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return fail_errno(errno, fmt::format("{}: no socket", path));
  }
  ::fchmod(fd.get(), 0600);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0 ||
      ::listen(fd.get(), 8) != 0) {
    return fail_errno(errno, fmt::format("{}: cannot listen", path));
  }
  return fd;
}

}  // namespace whistler
