// A disk in memory: for tests, and for throw-away layers.
#pragma once

#include <vector>

#include "block/block_device.hpp"

namespace whistler {

/// Every request completes inline. Not durable, not thread-safe.
class MemoryBlockDevice final : public BlockDevice {
 public:
  explicit MemoryBlockDevice(std::uint64_t size, bool read_only = false)
      : bytes_(size), read_only_(read_only) {}

  [[nodiscard]] std::uint64_t size() const override { return bytes_.size(); }
  [[nodiscard]] bool read_only() const override { return read_only_; }
  [[nodiscard]] std::string name() const override { return "memory"; }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> close() override;

  /// The content, for tests.
  [[nodiscard]] std::vector<std::uint8_t>& bytes() { return bytes_; }
  /// How many flushes have been asked for.
  [[nodiscard]] unsigned flushes() const { return flushes_; }

 private:
  [[nodiscard]] Result<void> check(std::uint64_t offset, std::uint64_t bytes, bool write) const;

  std::vector<std::uint8_t> bytes_;
  bool read_only_;
  unsigned flushes_ = 0;
};

}  // namespace whistler
