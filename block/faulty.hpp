// A layer that fails on purpose: for tests, and for scripts that want to see what a sick disk does to a
// guest.
#pragma once

#include <functional>
#include <memory>

#include "block/block_device.hpp"

namespace whistler {

enum class FaultOperation : std::uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes, kResize };

/// What happens to one request.
struct Fault {
  int errnum = 0;          ///< 0: no fault
  bool half_done = false;  ///< the first half of a write, in whole sectors, is done before it fails
};

/// Asks `decide` about every request, in the order they arrive, and does as told.
class FaultyDevice final : public BlockDevice {
 public:
  using Decide = std::function<Fault(FaultOperation operation, std::uint64_t offset, std::uint64_t bytes)>;
  FaultyDevice(std::unique_ptr<BlockDevice> below, Decide decide)
      : below_(std::move(below)), decide_(std::move(decide)) {}

  [[nodiscard]] std::uint64_t size() const override { return below_->size(); }
  [[nodiscard]] bool read_only() const override { return below_->read_only(); }
  [[nodiscard]] std::string name() const override { return below_->name(); }
  [[nodiscard]] std::uint32_t request_alignment() const override { return below_->request_alignment(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return below_->block_status(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> close() override { return below_->close(); }

 private:
  [[nodiscard]] std::unexpected<Error> failed(const Fault& fault, std::string_view verb,
                                              std::uint64_t offset) const;

  std::unique_ptr<BlockDevice> below_;
  Decide decide_;
};

}  // namespace whistler
