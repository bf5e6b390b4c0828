// Everything that is to happen later, in one queue ordered by guest time.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "base/clock.hpp"

namespace whistler {

class Timer;

/// Owned by the machine; used under the machine lock. The event loop asks next_deadline() and calls
/// run_expired().
class TimerQueue {
 public:
  explicit TimerQueue(const Clock& clock) : clock_(clock) {}
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  [[nodiscard]] const Clock& clock() const { return clock_; }

  /// The earliest deadline, or nothing if no timer is armed.
  [[nodiscard]] std::optional<Nanoseconds> next_deadline() const;

  /// Calls every timer whose deadline is not after now, earliest first, those of one deadline in the order
  /// they were armed. A timer that arms itself again for a moment already past runs again in the same call at
  /// most once a deadline it names, so it must move its deadline on.
  void run_expired();

  /// `hook` is called whenever the earliest deadline moves forward in time to an earlier one: a loop asleep
  /// must wake.
  void on_earlier_deadline(std::function<void()> hook) { earlier_hook_ = std::move(hook); }

 private:
  friend class Timer;
  using Queue = std::multimap<Nanoseconds, Timer*>;

  const Clock& clock_;
  Queue queue_;
  std::function<void()> earlier_hook_;
};

/// One thing that happens later. Not copyable or movable; destruction cancels.
class Timer {
 public:
  Timer(TimerQueue& queue, std::function<void()> callback) : queue_(queue), callback_(std::move(callback)) {}
  ~Timer() { cancel(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  /// Calls back once at `deadline` (guest time), replacing an earlier arming.
  void arm(Nanoseconds deadline);
  void arm_after(Nanoseconds delay) { arm(queue_.clock().now() + delay); }
  void cancel();
  [[nodiscard]] bool armed() const { return position_.has_value(); }
  /// When it is due; meaningful only while armed.
  [[nodiscard]] Nanoseconds deadline() const { return position_ ? (*position_)->first : 0; }

 private:
  friend class TimerQueue;
  TimerQueue& queue_;
  std::function<void()> callback_;
  std::optional<TimerQueue::Queue::iterator> position_;
};

}  // namespace whistler
