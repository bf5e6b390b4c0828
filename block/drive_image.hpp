// The image a guest's drive shows, with its requests counted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "block/block_device.hpp"

namespace whistler {

/// What went through a drive since it exists. Times are nanoseconds of host time, from a request's start to
/// its end.
struct IoCounts {
  struct Kind {
    std::uint64_t requests = 0, failed = 0, bytes = 0, nanoseconds = 0;
  };
  Kind reads, writes, flushes, discards;
  std::uint64_t highest_write = 0;  ///< end of the highest byte written
  std::int64_t last_request = 0;    ///< steady_clock when the last one ended; 0: none yet
};

/// Under the machine lock.
class DriveImage final : public BlockDevice {
 public:
  /// `counts` outlives it.
  DriveImage(std::unique_ptr<BlockDevice> image, IoCounts& counts)
      : image_(std::move(image)), counts_(counts) {}

  [[nodiscard]] std::uint64_t size() const override { return image_->size(); }
  [[nodiscard]] bool read_only() const override { return image_->read_only(); }
  [[nodiscard]] std::string name() const override { return image_->name(); }
  [[nodiscard]] std::uint32_t request_alignment() const override { return image_->request_alignment(); }
  [[nodiscard]] BlockDevice* backing() override { return image_->backing(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return image_->block_status(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override { return image_->resize(bytes); }
  [[nodiscard]] Task<Result<void>> close() override { return image_->close(); }

  /// The image itself, past all of the above.
  [[nodiscard]] BlockDevice& image() { return *image_; }

 private:
  void ended(IoCounts::Kind& kind, std::int64_t begun, std::uint64_t bytes, bool well);

  std::unique_ptr<BlockDevice> image_;
  IoCounts& counts_;
};

}  // namespace whistler
