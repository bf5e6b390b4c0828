// What is asked of every guest write beyond writing it: durability at once, or looking for zeroes.
#pragma once

#include <memory>

#include "block/open.hpp"

namespace whistler {

/// Stacked on an image only where a drive asks for it.
class WritePolicy final : public BlockDevice {
 public:
  /// `writethrough`: each write is durable when it ends.
  WritePolicy(std::unique_ptr<BlockDevice> image, bool writethrough, DetectZeroes detect_zeroes)
      : image_(std::move(image)), writethrough_(writethrough), detect_zeroes_(detect_zeroes) {}

  [[nodiscard]] std::uint64_t size() const override { return image_->size(); }
  [[nodiscard]] bool read_only() const override { return image_->read_only(); }
  [[nodiscard]] std::string name() const override { return image_->name(); }
  [[nodiscard]] BlockDevice* backing() override { return image_->backing(); }
  [[nodiscard]] std::uint32_t request_alignment() const override { return image_->request_alignment(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    return image_->readv(offset, to);
  }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override { return image_->flush(); }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override {
    return image_->discard(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override {
    flags.fua = flags.fua || writethrough_;
    return image_->write_zeroes(offset, bytes, flags);
  }
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
  std::unique_ptr<BlockDevice> image_;
  bool writethrough_;
  DetectZeroes detect_zeroes_;
};

}  // namespace whistler
