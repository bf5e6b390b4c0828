// What the main thread does: waits for descriptors and guest-time deadlines, and calls back under the machine
// lock.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/result.hpp"
#include "base/timer_queue.hpp"
#include "base/unique_fd.hpp"
#include "vmm/host_clock.hpp"

namespace whistler {

/// watch(), unwatch() and callbacks: under the machine lock. run_once(): the main thread, without the lock.
/// wake() and post(): any thread.
class EventLoop {
 public:
  using Callback = std::function<void(std::uint32_t events)>;

  /// `clock` and `timers` drive the deadlines; a stopped clock has none.
  [[nodiscard]] static Result<std::unique_ptr<EventLoop>> create(std::mutex& machine_lock, HostClock& clock,
                                                                 TimerQueue& timers);

  /// Calls back when `fd` has any of `events` (EPOLLIN, EPOLLOUT, ...), level-triggered. Replaces an earlier
  /// watch.
  void watch(int fd, std::uint32_t events, Callback callback);
  void unwatch(int fd);

  /// Runs `function` soon on the main thread under the machine lock.
  void post(std::function<void()> function);
  void wake();

  /// Waits for the next thing, at most `most` nanoseconds (negative: as long as it takes), and does it.
  void run_once(Nanoseconds most);

 private:
  EventLoop(std::mutex& machine_lock, HostClock& clock, TimerQueue& timers, UniqueFd epoll, UniqueFd wake);

  std::mutex& machine_lock_;
  HostClock& clock_;
  TimerQueue& timers_;
  UniqueFd epoll_;
  UniqueFd wake_;
  std::map<int, std::shared_ptr<Callback>> callbacks_;
  std::mutex posted_lock_;
  std::vector<std::function<void()>> posted_;
};

}  // namespace whistler
