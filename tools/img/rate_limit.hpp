// Keeps a copy below so many bytes a second.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>

namespace whistler::tools {

/// A bucket that leaks so many bytes a second: one that is full enough makes the next request wait, however
/// large that is, and nothing waits for the last one. 0 bytes a second: no limit. pass() sleeps, and with it
/// all the work of this thread.
class RateLimit {
 public:
  explicit RateLimit(std::uint64_t bytes_per_second)
      : bytes_per_second_(static_cast<double>(bytes_per_second)) {}

  void pass(std::uint64_t bytes) {
    if (bytes_per_second_ == 0) {
      return;
    }
    leak();
    const Seconds wait(level_ / bytes_per_second_ - kBurst);
    if (wait > Seconds(0)) {
      std::this_thread::sleep_for(wait);
      leak();
    }
    level_ += static_cast<double>(bytes);
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;
  /// So many seconds' bytes may be in the bucket while another request passes, as with QEMU.
  static constexpr double kBurst = 0.1;

  void leak() {
    const auto now = Clock::now();
    level_ = std::max(0.0, level_ - Seconds(now - last_).count() * bytes_per_second_);
    last_ = now;
  }

  double bytes_per_second_;
  double level_ = 0;
  Clock::time_point last_ = Clock::now();
};

}  // namespace whistler::tools
