#include "base/timer_queue.hpp"

namespace whistler {

std::optional<Nanoseconds> TimerQueue::next_deadline() const {
  if (queue_.empty()) {
    return std::nullopt;
  }
  return queue_.begin()->first;
}

void TimerQueue::run_expired() {
  while (!queue_.empty() && queue_.begin()->first <= clock_.now()) {
    Timer& timer = *queue_.begin()->second;
    timer.cancel();
    timer.callback_();
  }
}

void Timer::arm(Nanoseconds deadline) {
  cancel();
  const bool earlier = queue_.queue_.empty() || deadline < queue_.queue_.begin()->first;
  position_ = queue_.queue_.emplace(deadline, this);
  if (earlier && queue_.earlier_hook_) {
    queue_.earlier_hook_();
  }
}

void Timer::cancel() {
  if (position_) {
    queue_.queue_.erase(*position_);
    position_.reset();
  }
}

}  // namespace whistler
