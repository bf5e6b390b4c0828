// The target of a backup whose clusters are stored compressed.
#pragma once

#include <memory>

#include "base/stop.hpp"
#include "block/qcow2/image.hpp"
#include "block/uring/ring.hpp"

namespace whistler {

/// Whether an image can hold compressed clusters at all.
[[nodiscard]] bool can_be_packed(const qcow2::Image* image);

/// Compresses on threads, so that nobody waits for it but the job.
class PackedTarget final : public BlockDevice {
 public:
  /// `image`, for which can_be_packed(), is what `target` leads to.
  PackedTarget(Ring& ring, std::unique_ptr<BlockDevice> target, qcow2::Image& image)
      : ring_(ring), target_(std::move(target)), image_(image) {}

  [[nodiscard]] std::uint64_t size() const override { return target_->size(); }
  [[nodiscard]] bool read_only() const override { return target_->read_only(); }
  [[nodiscard]] std::string name() const override { return target_->name(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    return target_->readv(offset, to);
  }
  /// Whole clusters, of which the disk's last may be shorter.
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags) override;
  [[nodiscard]] Task<Result<void>> flush() override { return target_->flush(); }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override {
    return target_->discard(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags) override {
    return target_->write_zeroes(offset, bytes, flags);
  }
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return target_->block_status(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override { return target_->resize(bytes); }
  [[nodiscard]] Task<Result<void>> close() override { return target_->close(); }

 private:
  [[nodiscard]] Task<Result<void>> write_cluster(std::uint64_t offset, IoVec from);

  Ring& ring_;
  std::unique_ptr<BlockDevice> target_;
  qcow2::Image& image_;
  Stop never_;  // it is not asked for; its being there sends the work to a thread
};

}  // namespace whistler
