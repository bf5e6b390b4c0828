// Keeps a copy below so many bytes a second.
#pragma once

#include <chrono>
#include <cstdint>
#include <thread>

namespace whistler::tools {

/// 0 bytes a second: no limit. pass() sleeps, and with it all the work of this thread.
class RateLimit {
 public:
  explicit RateLimit(std::uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  void pass(std::uint64_t bytes) {
    if (bytes_per_second_ == 0) {
      return;
    }
    passed_ += bytes;
    const std::chrono::duration<double> due(static_cast<double>(passed_) /
                                            static_cast<double>(bytes_per_second_));
    std::this_thread::sleep_until(begin_ + std::chrono::duration_cast<std::chrono::nanoseconds>(due));
  }

 private:
  std::uint64_t bytes_per_second_;
  std::uint64_t passed_ = 0;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace whistler::tools
