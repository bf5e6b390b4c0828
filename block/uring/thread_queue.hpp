// Host I/O without io_uring, for hosts that refuse it: containers whose seccomp profile forbids it, and old
// kernels. File operations are blocking calls in worker threads; what may last (sockets, polls, timeouts)
// waits in one more thread. A request costs two changes of thread, 20 to 50 us.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "block/uring/ring.hpp"

namespace whistler {

/// What a Ring without io_uring hands its operations to. Any thread.
class ThreadQueue {
 public:
  using Operation = Ring::Operation;

  [[nodiscard]] static Result<std::unique_ptr<ThreadQueue>> create();
  ThreadQueue(const ThreadQueue&) = delete;
  ThreadQueue& operator=(const ThreadQueue&) = delete;
  /// Nothing may be in flight.
  ~ThreadQueue();

  /// Readable when take() would give something, and after ring_bell().
  [[nodiscard]] int fd() const { return bell_.get(); }
  /// Begins `operation`; it must stay where it is until take() has given it back.
  void start(Operation& operation);
  /// Ends a socket operation, poll or timeout with -ECANCELED, unless it has ended by itself.
  void cancel(Operation& operation);
  /// Fills `ended` with operations that have their results, and gives how many. With `wait`: at least one.
  std::size_t take(std::span<Operation*> ended, bool wait);
  /// Makes fd() readable until the next take().
  void ring_bell();

 private:
  using Clock = std::chrono::steady_clock;
  struct Waiting {
    std::uint64_t number;
    Operation* operation;
    short events;  ///< to poll for; 0: only the time counts
    std::optional<Clock::time_point> until = {};
    int socket_flags = -1;  ///< of connect: what the socket had before; -1: nothing was changed
  };

  ThreadQueue(UniqueFd bell, UniqueFd wake) : bell_(std::move(bell)), wake_(std::move(wake)) {}

  // All with the mutex held.
  void start_file_operation(Operation& operation);
  void start_waiting(Operation& operation);
  void end(Operation& operation, std::int32_t result);
  void end_waiting(Waiting& waiting, std::int32_t result);
  void signal();
  /// What the operation gives now, or nothing if it has to wait on. `events`: what poll has found.
  [[nodiscard]] static std::optional<std::int32_t> attempt(Waiting& waiting, short events,
                                                           Clock::time_point now);
  [[nodiscard]] static std::optional<std::int32_t> attempt_connect(Waiting& waiting, short events,
                                                                   Clock::time_point now);

  /// The two kinds of threads.
  void work();
  void watch();
  /// Whether there is a thread that runs `body`, which was started now.
  [[nodiscard]] bool start_thread(std::vector<std::thread>& threads, void (ThreadQueue::*body)());

  UniqueFd bell_;
  UniqueFd wake_;  ///< interrupts the poll of watch()
  std::mutex mutex_;
  std::condition_variable work_there_;
  std::condition_variable ended_there_;
  std::deque<Operation*> work_;
  std::deque<Operation*> ended_;
  std::vector<Waiting> waiting_;
  std::uint64_t next_number_ = 0;
  std::size_t idle_ = 0;  ///< workers that wait
  bool ringing_ = false;  ///< the bell has been rung since the last take()
  bool ending_ = false;
  std::vector<std::thread> workers_;
  std::vector<std::thread> watcher_;  ///< one, once there is something to wait for
};

}  // namespace whistler
