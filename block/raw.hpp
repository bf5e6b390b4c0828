// A raw image as the guest sees it: a disk of whole 512-byte sectors over a file of any length.
#pragma once

#include <memory>

#include "block/block_device.hpp"

namespace whistler {

/// The size is the file's, rounded up to a sector as QEMU does; what lies between the file's end and the
/// disk's reads as zeroes. Requests beyond the size are refused, so the guest cannot make the file grow.
class RawDevice final : public BlockDevice {
 public:
  explicit RawDevice(std::unique_ptr<BlockDevice> file);
  /// A part of the file, of fixed size: `offset` and `bytes` must lie within it.
  RawDevice(std::unique_ptr<BlockDevice> file, std::uint64_t offset, std::uint64_t bytes);

  [[nodiscard]] std::uint64_t size() const override { return size_; }
  [[nodiscard]] bool read_only() const override { return file_->read_only(); }
  [[nodiscard]] std::string name() const override { return file_->name(); }
  [[nodiscard]] std::uint32_t request_alignment() const override { return file_->request_alignment(); }
  void debug_event(DebugEvent event) override { file_->debug_event(event); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override { return file_->flush(); }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> preallocate(std::uint64_t offset, std::uint64_t bytes,
                                               Preallocation mode) override {
    return file_->preallocate(offset, bytes, mode);
  }
  [[nodiscard]] Task<Result<void>> set_read_only(bool read_only) override {
    return file_->set_read_only(read_only);
  }
  [[nodiscard]] Task<Result<void>> close() override { return file_->close(); }

 private:
  std::unique_ptr<BlockDevice> file_;
  std::uint64_t offset_ = 0;
  std::uint64_t size_;
  bool fixed_size_ = false;
};

}  // namespace whistler
