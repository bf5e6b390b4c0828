// The image a guest's drive shows, with its requests counted, and held or watched while a job needs that.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/async.hpp"
#include "block/block_device.hpp"
#include "block/range_lock.hpp"

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

/// Who must know of every change to a drive's content while a job runs: a backup, a mirror.
class ChangeWatcher {
 public:
  virtual ~ChangeWatcher() = default;
  /// The range is about to change, and will once this has ended.
  [[nodiscard]] virtual Task<void> before_change(std::uint64_t offset, std::uint64_t bytes) {
    static_cast<void>(offset + bytes);
    co_return;
  }
  /// It has changed, or may have: the request may have failed.
  virtual void after_change(std::uint64_t offset, std::uint64_t bytes) { static_cast<void>(offset + bytes); }
};

/// Who keeps a record of all changes, from a drive's beginning to its end.
class ChangeRecorder {
 public:
  virtual ~ChangeRecorder() = default;
  /// The range has changed, or may have: the request may have failed.
  virtual void recorded(std::uint64_t offset, std::uint64_t bytes) = 0;
  virtual void resized(std::uint64_t bytes) = 0;
};

/// Under the machine lock. Jobs work beside it on the image itself, and may put another in its place.
class DriveImage final : public BlockDevice {
 public:
  using Failed = std::function<void(const Error& error, bool write)>;

  /// `counts` and `failed`, which is told of requests that fail if it is set, outlive it.
  DriveImage(std::unique_ptr<BlockDevice> image, IoCounts& counts, const Failed& failed)
      : image_(std::move(image)), counts_(counts), failed_(failed) {}

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
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> close() override { return image_->close(); }

  /// The image itself, past all of the above.
  [[nodiscard]] BlockDevice& image() { return *image_; }

  /// Done when no request is inside; those that come later wait until release().
  [[nodiscard]] Task<void> hold();
  void release();
  /// While it is held: puts another image in this one's place, and gives this one.
  [[nodiscard]] std::unique_ptr<BlockDevice> replace(std::unique_ptr<BlockDevice> image) {
    return std::exchange(image_, std::move(image));
  }
  /// While it is held: `watcher` is told of every change from now on; null: nobody.
  void watch(ChangeWatcher* watcher) { watcher_ = watcher; }
  /// Before the first request; `recorder` outlives it.
  void record_for(ChangeRecorder* recorder) { recorder_ = recorder; }
  /// As long as it is watched, each change holds its range shared while it is made.
  [[nodiscard]] RangeLock& changes() { return changes_; }

 private:
  /// As long as it lives, a request is inside.
  class Pass {
   public:
    explicit Pass(DriveImage& drive) : drive_(drive) { ++drive_.inside_; }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() {
      if (--drive_.inside_ == 0 && drive_.held_) {
        drive_.emptied_.wake_all();
      }
    }

   private:
    DriveImage& drive_;
  };

  /// Waits while it is held.
  [[nodiscard]] Task<void> turn();
  /// Writes of all kinds go by this if somebody watches.
  [[nodiscard]] Task<Result<void>> watched(std::uint64_t offset, std::uint64_t bytes,
                                           Task<Result<void>> change);
  void record(std::uint64_t offset, std::uint64_t bytes) {
    if (recorder_ != nullptr) {
      recorder_->recorded(offset, bytes);
    }
  }
  void ended(IoCounts::Kind& kind, std::int64_t begun, std::uint64_t bytes, const Result<void>& done);

  std::unique_ptr<BlockDevice> image_;
  IoCounts& counts_;
  const Failed& failed_;
  ChangeWatcher* watcher_ = nullptr;
  ChangeRecorder* recorder_ = nullptr;
  RangeLock changes_;
  std::size_t inside_ = 0;
  WaitQueue emptied_;
  bool held_ = false;
  WaitQueue released_;
};

}  // namespace whistler
