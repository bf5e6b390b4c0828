// Stands in for the backing file of an image that is written only in whole clusters.
#pragma once

#include <memory>
#include <string>

#include "block/block_device.hpp"

namespace whistler {

/// Nothing is known of its content, so that nobody leaves out a write because of it; and it is not read.
class UnreadBacking final : public BlockDevice {
 public:
  explicit UnreadBacking(std::uint64_t bytes) : bytes_(bytes) {}

  [[nodiscard]] std::uint64_t size() const override { return bytes_; }
  [[nodiscard]] bool read_only() const override { return true; }
  [[nodiscard]] std::string name() const override { return "a backing file that is not open"; }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t, IoVec) override { return refuse(); }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t, IoVec, WriteFlags) override { return refuse(); }
  [[nodiscard]] Task<Result<void>> flush() override { co_return Result<void>{}; }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t, std::uint64_t) override { return refuse(); }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t, std::uint64_t, ZeroFlags) override {
    return refuse();
  }
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t, std::uint64_t bytes) override {
    co_return BlockStatus{.bytes = bytes, .data = true};
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t) override { return refuse(); }
  [[nodiscard]] Task<Result<void>> close() override { co_return Result<void>{}; }

 private:
  [[nodiscard]] Task<Result<void>> refuse() { co_return fail(ErrorCode::kUnsupported, name()); }

  std::uint64_t bytes_;
};

}  // namespace whistler
