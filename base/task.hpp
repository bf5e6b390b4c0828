// Coroutines: Task<T> is work that may wait for I/O without a thread. It starts when awaited, runs on the
// thread that resumes it, and hands its result to the one coroutine that awaits it. Not thread-safe: a task
// belongs to one executor and, in the machine, runs under the machine lock.
//
// Rules for authors:
//  - Parameters are copied into the frame; references and spans must outlive the awaited call. Awaiting at
//  once, as in
//    `co_await f(span)`, keeps temporaries of the full expression alive.
//  - No capturing lambda as a coroutine: its captures live in the lambda, not in the frame. Write a function.
//  - Keep `co_await` out of conditional expressions and of braced initialisers: g++ 12 miscompiles
//  temporaries there.
//    Give the result a name first.
//  - Task functions do not throw; they return Result.
#pragma once

#include <coroutine>
#include <exception>
#include <functional>
#include <optional>
#include <utility>

#include "base/frame_memory.hpp"

namespace whistler {

template <typename T = void>
class Task;

namespace task_detail {

struct PromiseBase : frame_memory::Pooled {
  std::coroutine_handle<> continuation = std::noop_coroutine();

  struct FinalAwaiter {
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    template <typename Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> self) const noexcept {
      return self.promise().continuation;
    }
    void await_resume() const noexcept {}
  };

  std::suspend_always initial_suspend() noexcept { return {}; }
  FinalAwaiter final_suspend() noexcept { return {}; }
  [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
};

template <typename T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Task<T> get_return_object() noexcept;
  template <typename U>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  T take() { return std::move(*value); }
};

template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object() noexcept;
  void return_void() noexcept {}
  void take() noexcept {}
};

}  // namespace task_detail

template <typename T>
class [[nodiscard]] Task {
 public:
  using promise_type = task_detail::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  explicit Task(Handle handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) {
      handle_.destroy();
    }
  }

  auto operator co_await() && noexcept {
    struct Awaiter {
      Handle handle;
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<> waiter) noexcept {
        handle.promise().continuation = waiter;
        return handle;
      }
      T await_resume() { return handle.promise().take(); }
    };
    return Awaiter{handle_};
  }

 private:
  Handle handle_;
};

namespace task_detail {

template <typename T>
Task<T> Promise<T>::get_return_object() noexcept {
  return Task<T>(Task<T>::Handle::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() noexcept {
  return Task<void>(Task<void>::Handle::from_promise(*this));
}

/// A coroutine nobody awaits: it starts at once and frees itself when done.
struct Detached {
  struct promise_type : frame_memory::Pooled {
    Detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
  };
};

template <typename T, typename Done>
Detached run_detached(Task<T> task, Done done) {
  if constexpr (std::is_void_v<T>) {
    co_await std::move(task);
    done();
  } else {
    T value = co_await std::move(task);
    done(std::move(value));
  }
}

}  // namespace task_detail

/// Starts `task` now; it runs until it first waits. When it ends, `done` is called with its result (or
/// nothing for void), on the thread that resumed it last. Both are kept alive until then.
template <typename T, typename Done>
void spawn(Task<T> task, Done done) {
  task_detail::run_detached(std::move(task), std::move(done));
}
inline void spawn(Task<void> task) {
  spawn(std::move(task), [] {});
}

/// Something that makes waiting coroutines go on: the io_uring loop, or a test's.
class Executor {
 public:
  virtual ~Executor() = default;
  /// Resumes every coroutine whose I/O has completed. With `wait`, blocks until there is at least one; it
  /// must not be called so when nothing is in flight.
  virtual void run_once(bool wait) = 0;
};

/// Runs `task` to its end on this thread by turning `executor`, and returns its result. For tools and tests,
/// never for the machine's threads.
template <typename T>
T sync_wait(Executor& executor, Task<T> task) {
  if constexpr (std::is_void_v<T>) {
    bool finished = false;
    spawn(std::move(task), [&] { finished = true; });
    while (!finished) {
      executor.run_once(true);
    }
  } else {
    std::optional<T> result;
    spawn(std::move(task), [&](T value) { result.emplace(std::move(value)); });
    while (!result) {
      executor.run_once(true);
    }
    return std::move(*result);
  }
}

}  // namespace whistler
