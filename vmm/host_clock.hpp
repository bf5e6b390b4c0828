// Guest time from the host's monotonic clock.
#pragma once

#include <atomic>
#include <chrono>

#include "base/clock.hpp"

namespace whistler {

/// Starts stopped at 0. stop() and start() under the machine lock; now() from any thread.
class HostClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() const override {
    return running_ ? host_now() - offset_ : stopped_at_.load();
  }
  void start() {
    if (!running_) {
      offset_ = host_now() - stopped_at_;
      running_ = true;
    }
  }
  void stop() {
    if (running_) {
      stopped_at_ = host_now() - offset_;
      running_ = false;
    }
  }
  [[nodiscard]] bool running() const { return running_; }

 private:
  static Nanoseconds host_now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  std::atomic<bool> running_ = false;
  std::atomic<Nanoseconds> offset_ = 0;
  std::atomic<Nanoseconds> stopped_at_ = 0;
};

}  // namespace whistler
