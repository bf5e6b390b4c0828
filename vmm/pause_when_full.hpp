// A full host disk is the host's trouble, not the guest's: the machine is paused and the request tried again
// when there may be room.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/async.hpp"
#include "block/block_device.hpp"

namespace whistler {

/// Those requests of all drives that wait for room on the host. Under the machine lock.
class SpaceWaiters {
 public:
  /// `on_full` is told the first time a request must wait: pause the machine and say why.
  explicit SpaceWaiters(std::function<void(const Error&)> on_full) : on_full_(std::move(on_full)) {}

  /// No request waits, and none that waited is being tried again.
  [[nodiscard]] bool empty() const { return requests_ == 0; }
  /// Tries every waiting request once more. When none is trying(), empty() tells whether all found room.
  void retry() { queue_.wake_all(); }
  [[nodiscard]] bool trying() const { return requests_ != waiting_; }
  /// Nothing waits any longer: requests now fail to the guest, until start_over(). For a reset, which
  /// abandons them, and the end of the machine.
  void give_up();
  void start_over() { given_up_ = false; }
  [[nodiscard]] bool given_up() const { return given_up_; }

  /// A request finds the disk full for the first time. Unless this is false, it calls wait() and tries again
  /// as often as it takes, then leave().
  [[nodiscard]] bool enter(const Error& error);
  /// `co_await wait()`: true to try again, false to give up.
  Task<bool> wait();
  void leave() { --requests_; }

 private:
  std::function<void(const Error&)> on_full_;
  WaitQueue queue_;
  std::size_t requests_ = 0, waiting_ = 0;
  bool given_up_ = false;
};

/// A drive's top layer: writes that find the host's disk full wait instead of failing.
class PauseWhenFull final : public BlockDevice {
 public:
  PauseWhenFull(std::unique_ptr<BlockDevice> below, SpaceWaiters& waiters)
      : below_(std::move(below)), waiters_(waiters) {}

  [[nodiscard]] std::uint64_t size() const override { return below_->size(); }
  [[nodiscard]] bool read_only() const override { return below_->read_only(); }
  [[nodiscard]] std::string name() const override { return below_->name(); }
  [[nodiscard]] std::uint32_t request_alignment() const override { return below_->request_alignment(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    return below_->readv(offset, to);
  }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override {
    return below_->discard(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return below_->block_status(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override { return below_->resize(bytes); }
  [[nodiscard]] Task<Result<void>> close() override { return below_->close(); }

 private:
  /// Does `request` until it finds room.
  template <typename Request>
  [[nodiscard]] Task<Result<void>> insist(Request request);

  std::unique_ptr<BlockDevice> below_;
  SpaceWaiters& waiters_;
};

}  // namespace whistler
