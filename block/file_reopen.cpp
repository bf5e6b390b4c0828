// Opening a host file once more, with other rights, under the same descriptor.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "base/unique_fd.hpp"
#include "block/file.hpp"
#include "block/file_lock.hpp"

namespace whistler {

Task<Result<void>> FileDevice::set_read_only(bool read_only) {
  if (read_only == options_.read_only) {
    co_return Result<void>{};
  }
  if (read_only) {
    cut_back();
  }
  auto done = co_await flush();
  if (!done) {
    co_return done;
  }
  // Its name may belong to another file by now.
  const auto same = fmt::format("/proc/self/fd/{}", fd_);
  const int flags = (read_only ? O_RDONLY : O_RDWR) | (is_direct(options_.cache) ? O_DIRECT : 0) | O_CLOEXEC;
  const UniqueFd again(::open(same.c_str(), flags));
  if (!again) {
    co_return fail_errno(
        errno, fmt::format("{}: cannot be opened again{}", name(), read_only ? "" : ", for writing"));
  }
  if (options_.lock) {
    unlock_image(fd_);  // what is held for one descriptor is in the way of another
    done = lock(again.get(), read_only);
    if (!done) {
      static_cast<void>(lock(fd_, options_.read_only));
      co_return done;
    }
  }
  if (::dup3(again.get(), fd_, O_CLOEXEC) < 0) {
    co_return fail_errno(errno, fmt::format("{}: cannot be opened again", name()));
  }
  options_.read_only = read_only;
  co_return Result<void>{};
}

}  // namespace whistler
