// What jobs have in common: copying a stretch from one image to another.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "block/block_device.hpp"
#include "block/chain_status.hpp"
#include "block/jobs/block_job.hpp"

namespace whistler {

/// Memory for one piece, such that no layer has to move it.
class CopyBuffer {
 public:
  /// `bytes`: at least one copy's length.
  explicit CopyBuffer(std::size_t bytes);
  [[nodiscard]] std::span<std::uint8_t> first(std::uint64_t bytes) const {
    return {memory_.get(), static_cast<std::size_t>(bytes)};
  }
  [[nodiscard]] std::size_t size() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::uint8_t* memory) const;
  };
  std::unique_ptr<std::uint8_t, Free> memory_;
  std::size_t bytes_;
};

/// How a copy ended; an error is of the source or of the target.
struct Copied {
  Result<void> result = {};
  bool write = false;
};

/// Copies what `source` shows; a stretch that `status` knows to be zero is not read.
[[nodiscard]] Task<Copied> copy_stretch(BlockDevice& source, BlockDevice& target, std::uint64_t offset,
                                        std::uint64_t bytes, ChainStatus status, const CopyBuffer& buffer);

/// A job that goes over a disk once, from its beginning to its end.
class DiskWalk {
 public:
  virtual ~DiskWalk() = default;
  /// Deals with the first part of [at, at + bytes) that is all alike, and says how long that was.
  [[nodiscard]] virtual Task<Copied> step(std::uint64_t at, std::uint64_t& bytes,
                                          const CopyBuffer& buffer) = 0;
};

/// Where a request fails whose errors are to be ignored: try it again, or go on and fail in the end.
enum class IfIgnored : std::uint8_t { kRetry, kGoOn };

/// Takes `work` over `size` bytes, at the pace of `job` and by its policy for errors.
[[nodiscard]] Task<Result<void>> walk_disk(BlockJob& job, DiskWalk& work, std::uint64_t size,
                                           IfIgnored if_ignored);

/// chain_status() in units of `unit` bytes, of which `offset` is a multiple: one that is not all alike counts
/// as data. For a target that must be written in whole units.
[[nodiscard]] Task<Result<ChainStatus>> unit_status(BlockDevice& top, const BlockDevice* base,
                                                    std::uint64_t offset, std::uint64_t bytes,
                                                    std::uint64_t unit);

/// Units for copies to a target that allocates `cluster` bytes at a time, as a power of two.
[[nodiscard]] unsigned copy_unit_bits(std::uint64_t cluster);

}  // namespace whistler
