// Several requests under way together, for one coroutine that waits for all of them.
#pragma once

#include <cstddef>
#include <utility>

#include "base/async.hpp"
#include "base/result.hpp"
#include "base/task.hpp"

namespace whistler {

/// Lives in the frame of the coroutine that waits; wait() must have ended before it goes.
class Gather {
 public:
  Gather() = default;
  Gather(const Gather&) = delete;
  Gather& operator=(const Gather&) = delete;

  /// Starts `task`, which runs until it first waits.
  void start(Task<Result<void>> task) {
    ++running_;
    spawn(std::move(task), [this](Result<void> result) {
      if (!result && result_) {
        result_ = std::move(result);
      }
      --running_;
      changed_.wake_all();  // whoever waits may be gone with this object afterwards
    });
  }
  /// Ends when fewer than `limit` are under way.
  [[nodiscard]] Task<void> wait_below(std::size_t limit) {
    while (running_ >= limit) {
      co_await changed_.wait();
    }
  }
  /// Ends when all have ended; gives the first error.
  [[nodiscard]] Task<Result<void>> wait() {
    while (running_ != 0) {
      co_await changed_.wait();
    }
    co_return std::move(result_);
  }
  [[nodiscard]] bool failed() const { return !result_.has_value(); }

 private:
  std::size_t running_ = 0;
  Result<void> result_;
  WaitQueue changed_;
};

}  // namespace whistler
