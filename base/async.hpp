// How coroutines of one executor wait for each other. None of these is thread-safe.
#pragma once

#include <coroutine>
#include <cstddef>
#include <deque>
#include <utility>

#include "base/task.hpp"

namespace whistler {

/// Coroutines that wait until somebody wakes them, in order of arrival.
class WaitQueue {
 public:
  WaitQueue() = default;
  WaitQueue(const WaitQueue&) = delete;
  WaitQueue& operator=(const WaitQueue&) = delete;

  /// `co_await queue.wait()` suspends until a wake reaches this coroutine; check the condition again
  /// afterwards.
  [[nodiscard]] auto wait() {
    struct Awaiter {
      WaitQueue& queue;
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> waiter) { queue.waiters_.push_back(waiter); }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

  /// Resumes the first waiter, if any, before returning.
  void wake_one() {
    if (!waiters_.empty()) {
      const auto waiter = waiters_.front();
      waiters_.pop_front();
      waiter.resume();
    }
  }
  /// Resumes all that wait now; those that start to wait meanwhile stay.
  void wake_all() {
    auto woken = std::exchange(waiters_, {});
    for (const auto waiter : woken) {
      waiter.resume();
    }
  }
  [[nodiscard]] bool empty() const { return waiters_.empty(); }

 private:
  std::deque<std::coroutine_handle<>> waiters_;
};

/// A lock held across co_await, granted in order of arrival.
class AsyncMutex {
 public:
  class [[nodiscard]] Guard {
   public:
    explicit Guard(AsyncMutex& mutex) : mutex_(&mutex) {}
    Guard(Guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() { unlock(); }
    void unlock() {
      if (mutex_ != nullptr) {
        std::exchange(mutex_, nullptr)->release();
      }
    }

   private:
    AsyncMutex* mutex_;
  };

  /// `auto guard = co_await mutex.lock();`
  [[nodiscard]] auto lock() {
    struct Awaiter {
      AsyncMutex& mutex;
      [[nodiscard]] bool await_ready() const noexcept {
        if (mutex.held_) {
          return false;
        }
        mutex.held_ = true;
        return true;
      }
      void await_suspend(std::coroutine_handle<> waiter) { mutex.waiters_.push_back(waiter); }
      Guard await_resume() const noexcept { return Guard(mutex); }
    };
    return Awaiter{*this};
  }
  [[nodiscard]] bool held() const { return held_; }

 private:
  void release() {
    if (waiters_.empty()) {
      held_ = false;
      return;
    }
    const auto next = waiters_.front();  // the lock passes on without being free in between
    waiters_.pop_front();
    next.resume();
  }

  bool held_ = false;
  std::deque<std::coroutine_handle<>> waiters_;
};

/// Counts requests in flight and lets one wait until there are none ("drain").
class Gate {
 public:
  class [[nodiscard]] Pass {
   public:
    explicit Pass(Gate& gate) : gate_(&gate) { ++gate_->inside_; }
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (gate_ != nullptr && --gate_->inside_ == 0) {
        gate_->empty_.wake_all();
      }
    }

   private:
    Gate* gate_;
  };

  Pass enter() { return Pass(*this); }
  [[nodiscard]] std::size_t inside() const { return inside_; }
  /// Done when nobody is inside.
  Task<void> drain() {
    while (inside_ != 0) {
      co_await empty_.wait();
    }
  }

 private:
  std::size_t inside_ = 0;
  WaitQueue empty_;
};

}  // namespace whistler
