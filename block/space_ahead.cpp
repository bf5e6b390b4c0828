#include "block/space_ahead.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>

namespace whistler {

namespace {

/// Shorter runs are not worth a call.
constexpr std::uint64_t kLeastRun = 256 * 1024;

bool allocate(int fd, int mode, std::uint64_t begin, std::uint64_t end) {
  return ::fallocate(fd, mode, static_cast<off_t>(begin), static_cast<off_t>(end - begin)) == 0;
}

}  // namespace

std::optional<std::uint64_t> length_of(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) {
    return {};
  }
  return static_cast<std::uint64_t>(status.st_size);
}

bool within_file_size_limit(std::uint64_t end) {
  rlimit limit{};
  return ::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || end <= limit.rlim_cur;
}

bool SpaceAhead::helps(int fd) {
  struct statfs system{};
  return ::fstatfs(fd, &system) == 0 && system.f_type == EXT4_SUPER_MAGIC;
}

void SpaceAhead::before_write(int fd, std::uint64_t file_bytes, std::uint64_t offset, std::uint64_t bytes,
                              bool fresh) {
  if (offset > used_) {
    give_back(fd);
    run_begin_ = offset;
  }
  const bool follows = fresh && offset >= used_;
  used_ = std::max(used_, offset + bytes);
  if (!follows) {
    return;
  }
  const auto run = used_ - run_begin_;
  if (used_ <= end_ || run < kLeastRun || refused_) {
    return;
  }
  const auto begin = std::max(end_, offset);
  auto end = used_ + std::min(run, kMostSpaceAhead);
  if (used_ <= file_bytes) {
    end = std::min(end, file_bytes);
  }
  // A growing file is made longer: space behind its end could not be given back while others write to it.
  refused_ = !within_file_size_limit(end) || !allocate(fd, 0, begin, end);
  // A host that runs out of space midway keeps what it has found.
  end_ = refused_ ? std::min(end, length_of(fd).value_or(end)) : end;
}

void SpaceAhead::give_back(int fd) {
  if (end_ > used_) {
    allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, used_, end_);
  }
  end_ = 0;
}

}  // namespace whistler
