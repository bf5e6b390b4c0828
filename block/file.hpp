// A host file or block device as bytes: the lowest layer of every image.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "base/stop.hpp"
#include "block/block_device.hpp"
#include "block/cache_mode.hpp"
#include "block/range_lock.hpp"
#include "block/space_ahead.hpp"
#include "block/uring/ring.hpp"

namespace whistler {

struct FileOptions {
  std::string path = {};
  bool read_only = false;
  CacheMode cache = CacheMode::kWriteback;
  /// Take QEMU's image locks; a backing file or a shared read needs them too.
  bool lock = true;
  /// Do not mind others who write (the tools' -U); needs read_only.
  bool force_share = false;
  /// Buffered writes by a system call on the spot, where they cost a copy, instead of through a kernel
  /// worker. For tools: it may block on a congested disk, which a machine's thread must not.
  bool inline_writes = false;
  /// By QEMU's names what it must be: "file" (or a block device), else a block or character device, which
  /// does not grow.
  std::string driver = "file";
};

/// Unlike a guest's disk it grows: a write beyond size() extends the file (with a hole in between), and a
/// read beyond it gives zeroes. Any alignment is allowed in every cache mode: under O_DIRECT unaligned pieces
/// go through bounce buffers.
class FileDevice final : public BlockDevice {
 public:
  /// Opens an existing file. `ring` must outlive the device.
  [[nodiscard]] static Result<std::unique_ptr<FileDevice>> open(Ring& ring, const FileOptions& options);
  /// Makes the file, or empties it if it exists and nobody uses it, and opens it.
  [[nodiscard]] static Result<std::unique_ptr<FileDevice>> create(Ring& ring, const FileOptions& options);
  ~FileDevice() override;
  FileDevice(const FileDevice&) = delete;
  FileDevice& operator=(const FileDevice&) = delete;

  [[nodiscard]] std::uint64_t size() const override { return size_; }
  void expect_growth() override { expect_growth_ = is_direct(options_.cache) && !block_device_; }
  [[nodiscard]] bool read_only() const override { return options_.read_only; }
  [[nodiscard]] std::string name() const override { return options_.path; }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> preallocate(std::uint64_t offset, std::uint64_t bytes,
                                               Preallocation mode) override;
  [[nodiscard]] Task<Result<void>> set_read_only(bool read_only) override;
  [[nodiscard]] Task<Result<void>> close() override;

  /// True for a host block device: it does not grow, and unwritten parts are not known to be zero.
  [[nodiscard]] bool is_block_device() const { return block_device_; }
  /// Bytes the host has allocated (st_blocks), for `img info`.
  [[nodiscard]] std::uint64_t allocated_bytes() const;

 private:
  FileDevice(Ring& ring, const FileOptions& options, int fd) : ring_(ring), options_(options), fd_(fd) {}
  [[nodiscard]] static Result<std::unique_ptr<FileDevice>> open_with(Ring& ring, const FileOptions& options,
                                                                     bool make);
  [[nodiscard]] Result<void> inspect();
  [[nodiscard]] Result<void> lock(int fd, bool read_only, std::chrono::milliseconds patience = {}) const;
  [[nodiscard]] Result<void> check_write(std::uint64_t offset, std::uint64_t bytes) const;
  [[nodiscard]] std::unexpected<Error> io_error(int errnum, std::string_view verb, std::uint64_t offset,
                                                std::uint64_t bytes) const;
  [[nodiscard]] bool aligned(std::uint64_t offset, IoVec vec) const;

  /// The rest of a read of which `done` bytes are there; aligned if direct.
  [[nodiscard]] Task<Result<void>> read_rest(std::uint64_t offset, IoVec to, std::uint64_t done);
  [[nodiscard]] Task<Result<void>> write_rest(std::uint64_t offset, IoVec from, std::uint64_t done, int flags,
                                              bool aside = false);
  [[nodiscard]] Task<Result<void>> read_bounced(std::uint64_t offset, IoVec to);
  [[nodiscard]] Task<Result<void>> write_bounced(std::uint64_t offset, IoVec from, int flags);
  /// Before a direct write up to `end`: makes the host's file longer than that, if growth is expected.
  [[nodiscard]] Task<void> grow_ahead(std::uint64_t end);
  /// Something was written up to `end`.
  void note_end(std::uint64_t end) {
    size_ = std::max(size_, end);
    host_size_ = std::max(host_size_, end);
  }
  /// Gives back space that was set aside for writes and not used.
  void give_back_space() {
    if (ahead_) {
      ahead_->give_back(fd_);
    }
  }
  /// Cuts off what was made longer than it was written. Nothing may be in flight.
  void cut_back();
  [[nodiscard]] Task<std::int32_t> allocate(int mode, std::uint64_t offset, std::uint64_t bytes);

  Ring& ring_;
  FileOptions options_;
  int fd_;
  std::uint64_t size_ = 0;
  std::uint64_t host_size_ = 0;  ///< of the host's file; more than size_ while it grows ahead of writes
  bool expect_growth_ = false;
  bool growing_ = false;
  WaitQueue grown_;
  std::optional<SpaceAhead> ahead_;  ///< of buffered writes, where it helps
  bool block_device_ = false;
  bool can_punch_ = true;
  bool can_zero_range_ = true;
  bool can_read_nowait_ = true;
  /// An fsync failed: the kernel has dropped pages it could not write, so no later flush can vouch for them.
  bool lost_writes_ = false;
  std::uint32_t alignment_ = 1;  ///< of offsets, lengths and memory under O_DIRECT
  RangeLock direct_writes_;      ///< keeps read-modify-write of one block apart from other writes to it
};

/// FileDevice::open() for who must not be held up by a slow file system: on a thread, until `stop` (may be
/// null: then it is the same) is asked for.
[[nodiscard]] Task<Result<std::unique_ptr<FileDevice>>> open_file_task(Ring& ring, FileOptions options,
                                                                       Stop* stop);
/// The same for create().
[[nodiscard]] Task<Result<std::unique_ptr<FileDevice>>> create_file_task(Ring& ring, FileOptions options,
                                                                         Stop* stop);

}  // namespace whistler
