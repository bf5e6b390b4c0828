#include "block/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <limits>

#include "base/bytes.hpp"
#include "block/file_lock.hpp"
#include "block/iovec.hpp"
#include "block/plain_zeroes.hpp"
#include "block/uring/stoppable.hpp"

namespace whistler {

namespace {

/// One system call moves at most this much (Linux: INT_MAX rounded down to a page); a multiple of any block
/// size.
constexpr std::uint64_t kMaxTransfer = 0x7fff'0000;
constexpr std::uint64_t kMaxOffset = std::numeric_limits<off_t>::max();
constexpr std::uint64_t kSector = 512;
/// How long the kernel may take to let go of the images of a process that was killed.
constexpr std::chrono::seconds kLockPatience{2};
/// Larger buffered writes are worth handing to a kernel worker: copying them takes longer than that.
constexpr std::uint64_t kMostInline = 64 * 1024;

bool not_offered(int error) {
  return error == -EOPNOTSUPP || error == -ENOSYS || error == -ENODEV || error == -EINVAL;
}

/// A piece of a transfer that fits into one system call: at most IOV_MAX pieces and kMaxTransfer bytes.
IoVec bounded(IoVec vec, IoSlice& storage) {
  if (vec.size() > IOV_MAX) {
    vec = vec.first(IOV_MAX);
  }
  if (iovec_bytes(vec) > kMaxTransfer) {
    storage.append(vec, 0, kMaxTransfer);
    return storage.vec();
  }
  return vec;
}

}  // namespace

Result<CacheMode> parse_cache_mode(std::string_view name) {
  using enum CacheMode;
  if (name == "writeback") {
    return kWriteback;
  }
  if (name == "none") {
    return kNone;
  }
  if (name == "writethrough") {
    return kWritethrough;
  }
  if (name == "directsync") {
    return kDirectsync;
  }
  if (name == "unsafe") {
    return kUnsafe;
  }
  return fail(
      ErrorCode::kInvalid,
      fmt::format("cache mode '{}' is not one of writeback, none, writethrough, directsync, unsafe", name));
}

Result<std::unique_ptr<FileDevice>> FileDevice::open(Ring& ring, const FileOptions& options) {
  return open_with(ring, options, false);
}

Result<std::unique_ptr<FileDevice>> FileDevice::create(Ring& ring, const FileOptions& options) {
  return open_with(ring, options, true);
}

Result<std::unique_ptr<FileDevice>> FileDevice::open_with(Ring& ring, const FileOptions& options, bool make) {
  const auto& path = options.path;
  const int flags = (options.read_only ? O_RDONLY : O_RDWR) | (is_direct(options.cache) ? O_DIRECT : 0) |
                    (make ? O_CREAT : 0) | O_CLOEXEC;
  // Opening a FIFO without a peer would wait for ever.
  const int fd = ::open(path.c_str(), flags | O_NONBLOCK, 0644);
  if (fd < 0) {
    if (errno == EINVAL && is_direct(options.cache)) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("{}: this file system has no O_DIRECT; use the cache mode writeback", path));
    }
    const auto errnum = errno;
    auto failed = fail_errno(
        errnum, fmt::format("{}: cannot be opened{}", path, options.read_only ? "" : " for writing"));
    failed.error().brief = fmt::format("Could not {} '{}': {}", make ? "create" : "open", path,
                                       std::generic_category().message(errnum));
    return failed;
  }
  auto device = std::unique_ptr<FileDevice>(new FileDevice(ring, options, fd));
  if (auto ok = device->inspect(); !ok) {
    return std::unexpected(ok.error());
  }
  if (options.lock) {
    if (auto ok = device->lock(fd, options.read_only, kLockPatience); !ok) {
      return std::unexpected(ok.error());
    }
  }
  if (make && !device->block_device_) {
    if (::ftruncate(fd, 0) != 0) {
      return fail_errno(errno, fmt::format("{}: cannot be emptied", path));
    }
    device->size_ = device->host_size_ = 0;
  }
  return device;
}

namespace {

using Opening = Result<std::unique_ptr<FileDevice>> (*)(Ring&, const FileOptions&);

Task<Result<std::unique_ptr<FileDevice>>> with(Opening open, Ring& ring, FileOptions options, Stop* stop) {
  auto path = options.path;
  auto call = [open, &ring, options = std::move(options)] { return open(ring, options); };
  auto opened = co_await in_thread(ring, std::move(call), stop);
  if (!opened) {
    co_return fail(ErrorCode::kCancelled, fmt::format("{}: opening it was given up", path));
  }
  co_return std::move(*opened);
}

}  // namespace

Task<Result<std::unique_ptr<FileDevice>>> open_file_task(Ring& ring, FileOptions options, Stop* stop) {
  return with(&FileDevice::open, ring, std::move(options), stop);
}

Task<Result<std::unique_ptr<FileDevice>>> create_file_task(Ring& ring, FileOptions options, Stop* stop) {
  return with(&FileDevice::create, ring, std::move(options), stop);
}

Result<void> FileDevice::lock(int fd, bool read_only, std::chrono::milliseconds patience) const {
  const std::uint8_t held = read_only ? kConsistentRead : kConsistentRead | kWrite | kResize;
  const std::uint8_t withheld = options_.force_share ? 0 : kWrite | kResize;
  return lock_image(fd, options_.path, held, withheld, patience);
}

FileDevice::~FileDevice() {
  cut_back();
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

Result<void> FileDevice::inspect() {
  struct stat status{};
  if (::fstat(fd_, &status) != 0) {
    return fail_errno(errno, fmt::format("{}: cannot be examined", name()));
  }
  const bool device = options_.driver != "file";
  if (device && !S_ISBLK(status.st_mode) && !S_ISCHR(status.st_mode)) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: is neither a block nor a character device", name()),
                fmt::format("'{}' driver requires '{}' to be either a character or block device",
                            options_.driver, name()));
  }
  if (S_ISDIR(status.st_mode)) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: is a directory, not a disk image", name()),
                fmt::format("'file' driver requires '{}' to be a regular file", name()));
  }
  block_device_ = device || S_ISBLK(status.st_mode);
  if (!block_device_ && !S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: is neither a file nor a block device", name()),
                fmt::format("'file' driver requires '{}' to be a regular file", name()));
  }
  const off_t end = ::lseek(fd_, 0, SEEK_END);
  if (end < 0) {
    return fail_errno(errno, fmt::format("{}: its size cannot be found out", name()));
  }
  size_ = host_size_ = static_cast<std::uint64_t>(end);
  if (options_.inline_writes && !block_device_ && !is_direct(options_.cache) && SpaceAhead::helps(fd_)) {
    ahead_.emplace();
  }
  if (is_direct(options_.cache)) {
    alignment_ = 4096;  // suits every disk; less where the host says so
    struct statx extended{};
    int sector = 0;
    if (block_device_ && ::ioctl(fd_, BLKSSZGET, &sector) == 0 && sector >= 512) {
      alignment_ = static_cast<std::uint32_t>(sector);
    }
#ifdef STATX_DIOALIGN
    if (::statx(fd_, "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) == 0 &&
        (extended.stx_mask & STATX_DIOALIGN) != 0 && extended.stx_dio_offset_align != 0) {
      alignment_ = std::max(extended.stx_dio_offset_align, extended.stx_dio_mem_align);
    }
#endif
    static_cast<void>(extended);
  }
  return {};
}

std::uint64_t FileDevice::allocated_bytes() const {
  struct stat status{};
  return ::fstat(fd_, &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512 : 0;
}

std::unexpected<Error> FileDevice::io_error(int errnum, std::string_view verb, std::uint64_t offset,
                                            std::uint64_t bytes) const {
  return fail_errno(errnum, fmt::format("{}: {} {} bytes at offset {}", name(), verb, bytes, offset));
}

Result<void> FileDevice::check_write(std::uint64_t offset, std::uint64_t bytes) const {
  if (options_.read_only) {
    return fail(ErrorCode::kPermission, fmt::format("{}: is open read-only", name()));
  }
  if (offset > kMaxOffset || bytes > kMaxOffset - offset) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: offset {} is beyond what a file can have", name(), offset));
  }
  return {};
}

bool FileDevice::aligned(std::uint64_t offset, IoVec vec) const {
  std::uint64_t all = offset;
  for (const auto& piece : vec) {
    all |= reinterpret_cast<std::uintptr_t>(piece.iov_base) | piece.iov_len;
  }
  return (all & (alignment_ - 1)) == 0;
}

Task<Result<void>> FileDevice::readv(std::uint64_t offset, IoVec to) {
  if (offset > kMaxOffset || iovec_bytes(to) > kMaxOffset - offset) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("{}: offset {} is beyond what a file can have", name(), offset));
  }
  if (is_direct(options_.cache)) {
    if (!aligned(offset, to)) {
      auto result = co_await read_bounced(offset, to);
      co_return result;
    }
  } else if (can_read_nowait_ && to.size() <= IOV_MAX) {
    co_await ring_.turn();
    // What is in the page cache costs one cheap system call and no wait.
    const auto count =
        ::preadv2(fd_, to.data(), static_cast<int>(to.size()), static_cast<off_t>(offset), RWF_NOWAIT);
    const auto done = count > 0 ? static_cast<std::uint64_t>(count) : 0;
    if (done == iovec_bytes(to)) {
      co_return Result<void>{};
    }
    if (count < 0 && errno == EOPNOTSUPP) {
      can_read_nowait_ = false;
    }
    auto result = co_await read_rest(offset, to, done);
    co_return result;
  }
  auto result = co_await read_rest(offset, to, 0);
  co_return result;
}

Task<Result<void>> FileDevice::read_rest(std::uint64_t offset, IoVec to, std::uint64_t done) {
  IoSlice rest(to, 0, iovec_bytes(to));
  rest.advance(done);
  while (!rest.vec().empty()) {
    IoSlice storage;
    const IoVec piece = bounded(rest, storage);
    const auto count =
        co_await ring_.readv(fd_, offset + done, piece.data(), static_cast<unsigned>(piece.size()));
    if (count == -EINTR || count == -EAGAIN) {
      continue;
    }
    if (count < 0) {
      co_return io_error(-count, "cannot read", offset + done, iovec_bytes(piece));
    }
    if (count == 0) {  // the end of the file
      zero_iovec(rest, 0, iovec_bytes(rest));
      break;
    }
    done += static_cast<std::uint64_t>(count);
    rest.advance(static_cast<std::uint64_t>(count));
    if (is_direct(options_.cache) && offset + done >= size_) {  // what follows an unaligned end
      zero_iovec(rest, 0, iovec_bytes(rest));
      break;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> FileDevice::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto bytes = iovec_bytes(from);
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  const int host_flags = flags.fua && options_.cache != CacheMode::kUnsafe ? RWF_DSYNC : 0;
  Result<void> result;
  if (is_direct(options_.cache)) {
    co_await grow_ahead(offset + bytes);
    const bool fits = aligned(offset, from);
    // Where whole blocks would make the file longer than the request does, it is cut afterwards: nobody may
    // write behind it.
    const auto block_end = align_up(offset + bytes, alignment_);
    RangeLock::Hold hold(direct_writes_, align_down(offset, alignment_),
                         !fits && block_end > host_size_ ? ~0ULL : block_end,
                         fits ? RangeLock::Mode::kShared : RangeLock::Mode::kExclusive);
    co_await hold;
    if (fits) {
      result = co_await write_rest(offset, from, 0, host_flags, flags.aside);
    } else {
      result = co_await write_bounced(offset, from, host_flags);
    }
  } else {
    if (ahead_) {
      ahead_->before_write(fd_, host_size_, offset, bytes, flags.fresh);
      host_size_ = std::max(host_size_, ahead_->end());
    }
    std::uint64_t done = 0;
    if (options_.inline_writes && !flags.aside && bytes <= kMostInline && from.size() <= IOV_MAX) {
      co_await ring_.turn();
      const auto count =
          ::pwritev2(fd_, from.data(), static_cast<int>(from.size()), static_cast<off_t>(offset), host_flags);
      done = count > 0 ? static_cast<std::uint64_t>(count) : 0;
    }
    if (done != bytes) {
      result = co_await write_rest(offset, from, done, host_flags);
      if (!result && result.error().code == ErrorCode::kNoSpace && ahead_) {
        give_back_space();  // or another write has done so, while this one failed
        result = co_await write_rest(offset, from, done, host_flags);
      }
    }
  }
  if (result) {
    note_end(offset + bytes);
  }
  co_return result;
}

Task<Result<void>> FileDevice::write_rest(std::uint64_t offset, IoVec from, std::uint64_t done, int flags,
                                          bool aside) {
  IoSlice rest(from, 0, iovec_bytes(from));
  rest.advance(done);
  while (!rest.vec().empty()) {
    IoSlice storage;
    const IoVec piece = bounded(rest, storage);
    const auto count = co_await ring_.writev(fd_, offset + done, piece.data(),
                                             static_cast<unsigned>(piece.size()), flags, aside);
    if (count == -EINTR || count == -EAGAIN) {
      continue;
    }
    if (count <= 0) {  // a write that moves nothing would do so for ever
      co_return io_error(count == 0 ? ENOSPC : -count, "cannot write", offset + done, iovec_bytes(piece));
    }
    done += static_cast<std::uint64_t>(count);
    rest.advance(static_cast<std::uint64_t>(count));
  }
  co_return Result<void>{};
}

Task<Result<void>> FileDevice::flush() {
  if (options_.read_only || options_.cache == CacheMode::kUnsafe) {
    co_return Result<void>{};
  }
  if (lost_writes_) {
    co_return fail(
        ErrorCode::kIo,
        fmt::format("{}: an earlier flush failed, what it was to write may be lost; reopen the image",
                    name()));
  }
  auto error = co_await ring_.fdatasync(fd_);
  while (error == -EINTR || error == -EAGAIN) {
    error = co_await ring_.fdatasync(fd_);
  }
  if (error == -EINVAL && options_.driver != "file") {
    co_return Result<void>{};  // such as /dev/null: it keeps nothing
  }
  if (error < 0) {
    lost_writes_ = !is_direct(options_.cache);
    co_return fail_errno(-error, fmt::format("{}: cannot flush", name()));
  }
  co_return Result<void>{};
}

Task<std::int32_t> FileDevice::allocate(int mode, std::uint64_t offset, std::uint64_t bytes) {
  auto error = co_await ring_.fallocate(fd_, mode, offset, bytes);
  while (error == -EINTR || error == -EAGAIN) {
    error = co_await ring_.fallocate(fd_, mode, offset, bytes);
  }
  co_return error;
}

Task<Result<void>> FileDevice::discard(std::uint64_t offset, std::uint64_t bytes) {
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  if (bytes == 0 || offset >= size_ || !can_punch_) {
    co_return Result<void>{};
  }
  const auto error = co_await allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
  if (not_offered(error)) {
    can_punch_ = false;
  } else if (error < 0) {
    co_return io_error(-error, "cannot discard", offset, bytes);
  }
  co_return Result<void>{};
}

Task<Result<void>> FileDevice::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  if (bytes == 0) {
    co_return Result<void>{};
  }
  const auto end = offset + bytes;
  RangeLock::Hold hold(direct_writes_, align_down(offset, alignment_), align_up(end, alignment_),
                       RangeLock::Mode::kExclusive);
  co_await hold;
  give_back_space();
  bool done = false;
  if (flags.may_unmap && can_punch_) {
    const auto error = co_await allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
    can_punch_ = !not_offered(error);
    done = error == 0;
    if (done && end > host_size_) {
      // By a block at the new end: to set the length could cut off what others write behind it meanwhile.
      done = co_await allocate(0, end - 1, 1) == 0;
    }
  }
  if (!done && can_zero_range_) {
    const auto error = co_await allocate(FALLOC_FL_ZERO_RANGE, offset, bytes);
    done = error == 0;
    can_zero_range_ = !not_offered(error);
  }
  Result<void> result;
  if (!done) {
    hold.release();
    result = co_await write_plain_zeroes(*this, offset, bytes);
  }
  if (result) {
    note_end(end);
    if (flags.fua) {
      result = co_await flush();
    }
  }
  co_return result;
}

Task<Result<BlockStatus>> FileDevice::block_status(std::uint64_t offset, std::uint64_t bytes) {
  if (offset >= size_) {
    co_return BlockStatus{bytes, false, true};
  }
  const auto asked = bytes;
  bytes = std::min(bytes, size_ - offset);
  if (block_device_) {
    co_return BlockStatus{bytes, true, false};
  }
  const off_t at = static_cast<off_t>(offset);
  const off_t data = ::lseek(fd_, at, SEEK_DATA);
  const bool unknown = data < 0 && errno != ENXIO;  // ENXIO: nothing but a hole up to the end
  if (data < 0 && !unknown) {
    co_return BlockStatus{bytes, false, true};
  }
  if (data > at) {
    co_return BlockStatus{std::min(bytes, static_cast<std::uint64_t>(data - at)), false, true};
  }
  const off_t hole = unknown ? -1 : ::lseek(fd_, at, SEEK_HOLE);
  const auto length = hole > at ? std::min(bytes, static_cast<std::uint64_t>(hole - at)) : bytes;
  // Under O_DIRECT the rest of a sector that the file ends within belongs to its data.
  const bool last = is_direct(options_.cache) && offset + length == size_;
  co_return BlockStatus{last ? std::min(asked, align_up(size_, kSector) - offset) : length, true, false};
}

Task<Result<void>> FileDevice::resize(std::uint64_t bytes) {
  if (auto ok = check_write(0, bytes); !ok) {
    co_return ok;
  }
  if (block_device_) {
    if (bytes > size_) {
      co_return fail(ErrorCode::kNoSpace,
                     fmt::format("{}: a block device of {} bytes cannot grow to {}", name(), size_, bytes));
    }
    co_return Result<void>{};
  }
  while (growing_) {
    co_await grown_.wait();
  }
  give_back_space();
  if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) {
    co_return fail_errno(errno, fmt::format("{}: cannot be resized to {} bytes", name(), bytes));
  }
  size_ = host_size_ = bytes;
  co_return Result<void>{};
}

Task<Result<void>> FileDevice::preallocate(std::uint64_t offset, std::uint64_t bytes, Preallocation mode) {
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  if (bytes == 0 || mode == Preallocation::kOff || mode == Preallocation::kMetadata || block_device_) {
    co_return Result<void>{};  // a file's own tables are the host's affair
  }
  give_back_space();
  ahead_.reset();  // from now on there may be space where nothing was written
  if (mode == Preallocation::kFalloc) {
    const auto error = co_await allocate(0, offset, bytes);
    if (error == 0) {
      note_end(offset + bytes);
      co_return Result<void>{};
    }
    if (!not_offered(error)) {
      co_return io_error(-error, "cannot allocate", offset, bytes);
    }
  }
  auto result = co_await write_plain_zeroes(*this, offset, bytes);
  co_return result;
}

Task<Result<void>> FileDevice::close() {
  cut_back();
  auto result = co_await flush();
  if (::close(std::exchange(fd_, -1)) != 0 && result) {
    result = fail_errno(errno, fmt::format("{}: cannot be closed", name()));
  }
  co_return result;
}

}  // namespace whistler
