// The "compress" filter: all that is written to a qcow2 image is compressed.
#pragma once

#include <memory>
#include <string>

#include "block/block_device.hpp"
#include "block/qcow2/image.hpp"
#include "block/range_lock.hpp"

namespace whistler {

/// Stacked on an image. Clusters are written whole: what a write leaves out of one is read and packed with
/// it.
class CompressOnWrite final : public BlockDevice {
 public:
  explicit CompressOnWrite(std::unique_ptr<qcow2::Image> image) : image_(std::move(image)) {}

  [[nodiscard]] std::uint64_t size() const override { return image_->size(); }
  [[nodiscard]] bool read_only() const override { return image_->read_only(); }
  [[nodiscard]] std::string name() const override { return image_->name(); }
  [[nodiscard]] BlockDevice* backing() override { return image_->backing(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    return image_->readv(offset, to);
  }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override { return image_->flush(); }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return image_->block_status(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override { return image_->resize(bytes); }
  [[nodiscard]] Task<Result<void>> close() override { return image_->close(); }

 private:
  /// Writes [begin, end) of the request, which lies in one cluster.
  [[nodiscard]] Task<Result<void>> write_cluster(std::uint64_t begin, std::uint64_t end, IoVec part);
  [[nodiscard]] std::uint64_t cluster_size() const { return image_->header().geometry().cluster_size(); }

  std::unique_ptr<qcow2::Image> image_;
  RangeLock clusters_;
};

}  // namespace whistler
