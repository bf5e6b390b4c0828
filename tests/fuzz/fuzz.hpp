// What the fuzz targets share: the input as a file in memory, and a turn over whatever opens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/block_device.hpp"

namespace whistler::fuzz {

/// A file in memory that grows as a host's file does, up to a limit beyond which the "host" is full.
class File final : public BlockDevice {
 public:
  static constexpr std::uint64_t kMaxBytes = 64 << 20;

  File(std::span<const std::uint8_t> content, bool read_only)
      : content_(content.begin(), content.end()), size_(content.size()), read_only_(read_only) {}

  [[nodiscard]] std::uint64_t size() const override { return size_; }
  [[nodiscard]] bool read_only() const override { return read_only_; }
  [[nodiscard]] std::string name() const override { return "input"; }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override { co_return Result<void>{}; }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override {
    return write_zeroes(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> close() override { co_return Result<void>{}; }

 private:
  std::vector<std::uint8_t> content_;  ///< the beginning; the rest up to size_ is a hole
  std::uint64_t size_;
  bool read_only_;
};

/// Runs a task that never waits.
template <typename T>
T now(Task<T> task) {
  class Never final : public Executor {
   public:
    void run_once(bool) override { __builtin_trap(); }
  } never;
  return sync_wait(never, std::move(task));
}

/// Reads, asks and, if it may, writes at the beginning, the end and in between, then closes it.
void use(BlockDevice& device);

}  // namespace whistler::fuzz
