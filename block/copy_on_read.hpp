// What is read from the backing file is kept in the overlay, so that it is read from there but once.
#pragma once

#include <memory>
#include <string>

#include "block/block_device.hpp"
#include "block/range_lock.hpp"

namespace whistler {

/// Stacked on an image that has a backing file. A read copies whole clusters; a write to the same clusters
/// waits meanwhile, so that a copy never undoes it. A read fails if its copy does.
class CopyOnRead final : public BlockDevice {
 public:
  /// `cluster`: bytes the image allocates at a time.
  CopyOnRead(std::unique_ptr<BlockDevice> image, std::uint64_t cluster)
      : image_(std::move(image)), cluster_(cluster) {}

  [[nodiscard]] std::uint64_t size() const override { return image_->size(); }
  [[nodiscard]] bool read_only() const override { return image_->read_only(); }
  [[nodiscard]] std::string name() const override { return image_->name(); }
  [[nodiscard]] std::uint32_t request_alignment() const override { return image_->request_alignment(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override { return image_->flush(); }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return image_->block_status(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override { return image_->resize(bytes); }
  [[nodiscard]] Task<Result<void>> preallocate(std::uint64_t offset, std::uint64_t bytes,
                                               Preallocation mode) override {
    return image_->preallocate(offset, bytes, mode);
  }
  [[nodiscard]] Task<Result<void>> close() override { return image_->close(); }

 private:
  /// Brings [offset, offset + bytes) up into the image; `to` gets what of it begins at `wanted`.
  [[nodiscard]] Task<Result<void>> copy_piece(std::uint64_t offset, std::uint64_t bytes, std::uint64_t wanted,
                                              IoVec to);

  std::unique_ptr<BlockDevice> image_;
  std::uint64_t cluster_;
  RangeLock copies_;
};

}  // namespace whistler
