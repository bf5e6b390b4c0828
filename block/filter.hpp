// A layer that passes everything on, for those that change but a few kinds of requests to build on.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "block/block_device.hpp"

namespace whistler {

class Filter : public BlockDevice {
 public:
  /// `below` is not null.
  explicit Filter(std::unique_ptr<BlockDevice> below) : below_(std::move(below)) {}

  [[nodiscard]] std::uint64_t size() const override { return below_->size(); }
  [[nodiscard]] bool read_only() const override { return below_->read_only(); }
  [[nodiscard]] std::string name() const override { return below_->name(); }
  [[nodiscard]] std::uint32_t request_alignment() const override { return below_->request_alignment(); }
  void debug_event(DebugEvent event) override { below_->debug_event(event); }
  void expect_growth() override { below_->expect_growth(); }
  [[nodiscard]] BlockDevice* backing() override { return below_->backing(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    return below_->readv(offset, to);
  }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override {
    return below_->writev(offset, from, flags);
  }
  [[nodiscard]] Task<Result<void>> flush() override { return below_->flush(); }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override {
    return below_->discard(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override {
    return below_->write_zeroes(offset, bytes, flags);
  }
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return below_->block_status(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override { return below_->resize(bytes); }
  [[nodiscard]] Task<Result<void>> preallocate(std::uint64_t offset, std::uint64_t bytes,
                                               Preallocation mode) override {
    return below_->preallocate(offset, bytes, mode);
  }
  [[nodiscard]] Task<Result<void>> close() override { return below_->close(); }

 protected:
  [[nodiscard]] BlockDevice& below() { return *below_; }

 private:
  std::unique_ptr<BlockDevice> below_;
};

}  // namespace whistler
