// The storage interface: the same above and below every layer, so file, qcow2, overlay, throttle and fault
// layers stack freely.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>

#include "base/result.hpp"
#include "base/task.hpp"
#include "block/debug_event.hpp"

namespace whistler {

/// Where guest data is or goes. The iovecs and the memory they name must stay valid until the task has ended.
using IoVec = std::span<const iovec>;

/// The sum of the lengths of `vec`, in bytes.
[[nodiscard]] inline std::uint64_t iovec_bytes(IoVec vec) {
  std::uint64_t bytes = 0;
  for (const auto& piece : vec) {
    bytes += piece.iov_len;
  }
  return bytes;
}

struct WriteFlags {
  bool fua = false;  ///< the data is durable when the task ends, as if flushed
  /// A hint: other requests have work for this thread meanwhile, so copying the data may be left to another.
  bool aside = false;
  /// A hint: when the device was opened there was no data, and no space set aside, there or behind it.
  bool fresh = false;
};

struct ZeroFlags {
  bool may_unmap = true;  ///< the range may be given back to the host
  bool fua = false;
};

/// How much space a new range has before it is written.
enum class Preallocation : std::uint8_t {
  kOff,
  kMetadata,  ///< its place is decided: an image's tables name host clusters, which may be holes
  kFalloc,    ///< and the host has set the space aside
  kFull,      ///< and it was written with zeroes
};

/// What is known of a range without reading it.
struct BlockStatus {
  std::uint64_t bytes = 0;  ///< how far from the asked offset this answer holds; at least 1 within the device
  bool data = false;        ///< this layer (not its backing) holds the content
  bool zero = false;        ///< the range reads as zeroes
};

/// A disk, or a layer of one.
///
/// Offsets and lengths are bytes; any alignment is allowed unless a layer says otherwise (request_alignment).
/// A request beyond size() fails with kInvalid, nothing done; there is no partial success: an error leaves
/// the range undefined but never touches what lies outside of it. Many requests may be in flight; overlapping
/// ones have no order among themselves. What was written is durable once a later flush has succeeded. Used
/// from one thread at a time (in the machine: under the machine lock).
class BlockDevice {
 public:
  virtual ~BlockDevice() = default;

  [[nodiscard]] virtual std::uint64_t size() const = 0;
  [[nodiscard]] virtual bool read_only() const = 0;
  /// The file or image name, for messages.
  [[nodiscard]] virtual std::string name() const = 0;
  /// Offsets, lengths and memory addresses must be multiples of this (1, or the sector size under O_DIRECT).
  [[nodiscard]] virtual std::uint32_t request_alignment() const { return 1; }

  /// The layer above is about to do that; for a layer that injects faults.
  virtual void debug_event(DebugEvent event) { static_cast<void>(event); }
  /// The layer above will go on writing behind the end: a hint to make room there in larger steps.
  virtual void expect_growth() {}
  /// What shows where this layer holds nothing; null if nothing lies below.
  [[nodiscard]] virtual BlockDevice* backing() { return nullptr; }

  [[nodiscard]] virtual Task<Result<void>> readv(std::uint64_t offset, IoVec to) = 0;
  [[nodiscard]] virtual Task<Result<void>> writev(std::uint64_t offset, IoVec from,
                                                  WriteFlags flags = {}) = 0;
  [[nodiscard]] virtual Task<Result<void>> flush() = 0;
  /// A hint that the content is not needed: afterwards the range reads as zeroes or as before.
  [[nodiscard]] virtual Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) = 0;
  [[nodiscard]] virtual Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                        ZeroFlags flags = {}) = 0;
  [[nodiscard]] virtual Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) = 0;
  /// Changes size(). New space reads as zeroes. kUnsupported where a layer cannot.
  [[nodiscard]] virtual Task<Result<void>> resize(std::uint64_t bytes) = 0;
  /// Gives a range that was never written (new, or just added by resize()) its space in advance; it reads as
  /// before.
  [[nodiscard]] virtual Task<Result<void>> preallocate(std::uint64_t offset, std::uint64_t bytes,
                                                       Preallocation mode) {
    return write_zeroes(offset, mode == Preallocation::kOff ? 0 : bytes, {.may_unmap = false});
  }
  /// Opens it again in place, for reading only or for writing too. No write may be in flight; reads go on.
  /// After an error it is as it was. kUnsupported where a layer cannot.
  [[nodiscard]] virtual Task<Result<void>> set_read_only(bool read_only) {
    co_return read_only == this->read_only()
        ? Result<void>{}
        : fail(ErrorCode::kUnsupported, name() + ": its access rights cannot change while it is open");
  }
  /// Flushes, writes what must be written once at the end, and releases the host file. Nothing may be in
  /// flight; no other call may follow. Destruction without close releases without flushing (a crash).
  [[nodiscard]] virtual Task<Result<void>> close() = 0;
};

}  // namespace whistler
