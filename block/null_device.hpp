// A disk that is nowhere: QEMU's null-co. Writes vanish; reads give what the buffer held, or zeroes.
#pragma once

#include "block/block_device.hpp"
#include "block/iovec.hpp"

namespace whistler {

class NullDevice final : public BlockDevice {
 public:
  static constexpr std::uint64_t kDefaultBytes = std::uint64_t{1} << 30;
  NullDevice(std::uint64_t size, bool read_zeroes, bool read_only, std::string name)
      : size_(size), read_zeroes_(read_zeroes), read_only_(read_only), name_(std::move(name)) {}

  [[nodiscard]] std::uint64_t size() const override { return size_; }
  [[nodiscard]] bool read_only() const override { return read_only_; }
  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t /*offset*/, IoVec to) override {
    if (read_zeroes_) {
      zero_iovec(to, 0, iovec_bytes(to));
    }
    co_return Result<void>{};
  }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t /*offset*/, IoVec /*from*/,
                                          WriteFlags /*flags*/ = {}) override {
    co_return Result<void>{};
  }
  [[nodiscard]] Task<Result<void>> flush() override { co_return Result<void>{}; }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t /*offset*/, std::uint64_t /*bytes*/) override {
    co_return Result<void>{};
  }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t /*offset*/, std::uint64_t /*bytes*/,
                                                ZeroFlags /*flags*/ = {}) override {
    co_return Result<void>{};
  }
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t /*offset*/,
                                                       std::uint64_t bytes) override {
    co_return BlockStatus{.bytes = bytes, .data = true, .zero = read_zeroes_};
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t /*bytes*/) override {
    co_return fail(ErrorCode::kUnsupported, name_ + ": has a fixed size",
                   "Image format driver does not support resize");
  }
  [[nodiscard]] Task<Result<void>> close() override { co_return Result<void>{}; }

 private:
  std::uint64_t size_;
  bool read_zeroes_;
  bool read_only_;
  std::string name_;
};

}  // namespace whistler
