// What is read from the backing file is kept in the overlay, so that it is read from there but once.
#pragma once

#include <memory>

#include "block/filter.hpp"
#include "block/range_lock.hpp"

namespace whistler {

/// Stacked on an image that has a backing file. A read copies whole clusters; a write to the same clusters
/// waits meanwhile, so that a copy never undoes it. A read fails if its copy does.
class CopyOnRead final : public Filter {
 public:
  /// `cluster`: bytes the image allocates at a time.
  CopyOnRead(std::unique_ptr<BlockDevice> image, std::uint64_t cluster)
      : Filter(std::move(image)), cluster_(cluster) {}

  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;

 private:
  /// Brings [offset, offset + bytes) up into the image; `to` gets what of it begins at `wanted`.
  [[nodiscard]] Task<Result<void>> copy_piece(std::uint64_t offset, std::uint64_t bytes, std::uint64_t wanted,
                                              IoVec to);

  std::uint64_t cluster_;
  RangeLock copies_;
};

}  // namespace whistler
