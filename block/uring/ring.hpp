// The one place that talks to io_uring: host file and socket I/O as awaitables, and the executor that resumes
// their coroutines. Where the host refuses io_uring, threads do the same (thread_queue.hpp).
//
// An operation lives in the frame of the coroutine that awaits it; nothing is allocated for an I/O. Outside
// of run_once() an operation is submitted at once and, when the kernel has finished it by then (its data was
// in the page cache), the coroutine goes on without ever having waited. Inside run_once() operations are
// collected and submitted a few together, the rest at its end. At most kInlineBudget operations end
// inline between two calls of run_once(), so a caller that starts the next request from the completion of the
// last cannot exhaust the stack; layers that answer by a system call of their own wait for a turn().
//
// The kernel finishes some operations in the thread that submitted them, which it interrupts for that:
// KVM_RUN of a vCPU thread that submits may return EINTR and has to be entered again.
#pragma once

#include <liburing.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "base/result.hpp"
#include "base/task.hpp"

namespace whistler {

class ThreadQueue;

/// May be used from any thread, by one at a time (in the machine: under the machine lock). Must outlive all
/// its operations; nothing may be in flight when it is destroyed.
class Ring final : public Executor {
 public:
  /// How many operations may end without suspending between two calls of run_once().
  static constexpr unsigned kInlineBudget = 64;

  /// How the thread that submitted an operation learns that the kernel has finished it.
  enum class Notice : std::uint8_t {
    kInterrupt,  ///< at once, whatever it does: a vCPU thread in the guest, too
    kNextEntry,  ///< when it next enters the kernel: cheaper, for a program whose one thread turns the ring
  };

  /// `entries`: length of the submission queue, 1 to 4096; more operations than that may be in flight.
  /// Where the host does not offer io_uring, or WHISTLER_IO_URING=off is in the environment, by threads.
  [[nodiscard]] static Result<std::unique_ptr<Ring>> create(unsigned entries = 128,
                                                            Notice notice = Notice::kInterrupt);
  /// As a tool needs it: one thread that has nothing to do but wait. If there is more than one processor,
  /// run_once(true) stays awake for up to 100 us while it waits for files alone and they answer fast, and the
  /// kernel's workers keep off the processor that the caller is on now.
  [[nodiscard]] static Result<std::unique_ptr<Ring>> create_for_tool();
  /// What stands in io_uring's way, with the remedy, when setting it up gives `errnum`.
  [[nodiscard]] static Error unavailable(int errnum);
  /// Why threads are used in place of io_uring, if they are.
  [[nodiscard]] const std::optional<Error>& refused() const { return refused_; }

  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() override;

  /// Readable (epoll, EPOLLIN) when run_once(false) would resume something.
  [[nodiscard]] int fd() const;
  [[nodiscard]] std::size_t in_flight() const { return in_flight_; }

  void run_once(bool wait) override;

  /// `co_await ring.turn()` before a system call that answers without waiting, in place of an operation: goes
  /// on at once while the inline budget lasts, otherwise from run_once(), after those that came before.
  class [[nodiscard]] Turn {
   public:
    explicit Turn(Ring& ring) : ring_(ring) {}
    [[nodiscard]] bool await_ready() const noexcept { return ring_.take_inline_turn(); }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { ring_.queue_turn(waiter); }
    void await_resume() const noexcept {}

   private:
    Ring& ring_;
  };
  Turn turn() { return Turn(*this); }

  /// One host operation. `co_await` gives what the system call returns: a count, or a negative errno.
  class [[nodiscard]] Operation {
   public:
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    [[nodiscard]] bool await_suspend(std::coroutine_handle<> waiter) noexcept {
      return ring_.start(*this, waiter);
    }
    [[nodiscard]] std::int32_t await_resume() const noexcept { return result_; }

   private:
    friend class Ring;
    friend class ThreadQueue;
    enum class Kind : std::uint8_t {
      kReadv,
      kWritev,
      kFdatasync,
      kFallocate,
      kAccept,
      kConnect,
      kRecv,
      kSendmsg,
      kPoll,
      kTimeout,
    };
    /// Whether it ends within a bounded time, so that it may be done by a blocking call.
    [[nodiscard]] bool is_file() const { return kind_ <= Kind::kFallocate; }
    Operation(Ring& ring, Kind kind, int file) : ring_(ring), kind_(kind), file_(file) {}

    void prepare(io_uring_sqe& sqe);
    /// The same by a blocking system call, for when the kernel takes no submission.
    void run_blocking();

    Ring& ring_;
    Kind kind_;
    int file_;
    int flags_ = 0;
    bool aside_ = false;
    unsigned count_ = 0;
    const void* memory_ = nullptr;  ///< iovecs, address, buffer or message
    __kernel_timespec duration_{};
    std::uint64_t offset_ = 0;
    std::uint64_t bytes_ = 0;
    std::int32_t result_ = 0;
    std::coroutine_handle<> waiter_;
  };

  /// `vec` (at most IOV_MAX pieces) and its memory must stay valid until the operation has ended. `flags`:
  /// RWF_*.
  Operation readv(int file, std::uint64_t offset, const iovec* vec, unsigned count, int flags = 0);
  /// `aside`: left to a worker of the kernel's from the beginning, on another processor if one is free.
  Operation writev(int file, std::uint64_t offset, const iovec* vec, unsigned count, int flags = 0,
                   bool aside = false);
  Operation fdatasync(int file);
  /// `mode`: FALLOC_FL_*.
  Operation fallocate(int file, int mode, std::uint64_t offset, std::uint64_t bytes);

  /// Gives the new connection's descriptor (close-on-exec).
  Operation accept(int socket);
  Operation connect(int socket, const sockaddr* address, socklen_t bytes);
  /// At most `bytes`, at least one; 0 at the end of the stream. `flags`: MSG_*.
  Operation recv(int socket, void* to, std::size_t bytes, int flags = 0);
  Operation sendmsg(int socket, const msghdr* message, int flags = 0);
  /// Waits until one of `events` (POLLIN, ...) or an error is there, and gives the events.
  Operation poll(int file, short events);
  /// -ETIME when the time is over.
  Operation timeout(std::chrono::nanoseconds duration);
  /// Asks for a socket operation, poll or timeout in flight to end: it ends with -ECANCELED, or as it would
  /// have if it was faster. Its coroutine goes on from run_once().
  void cancel(Operation& operation);

 private:
  explicit Ring(const io_uring& ring);
  Ring(std::unique_ptr<ThreadQueue> threads, Error refused);
  [[nodiscard]] static Result<std::unique_ptr<Ring>> create_on_threads(Error refused);
  /// False if the operation has ended already and the coroutine shall go on.
  bool start(Operation& operation, std::coroutine_handle<> waiter);
  /// Hands the queue to the kernel; what it does not take stays for the next call.
  void submit();
  /// A free entry of the queue, or nothing if the kernel takes none now.
  io_uring_sqe* get_entry();
  /// Queues what had found no entry.
  void queue_overflow();
  void queue_cancel(Operation& operation, io_uring_sqe& entry);

  [[nodiscard]] bool take_inline_turn() {
    if (inline_budget_ == 0) {
      return false;
    }
    --inline_budget_;
    return true;
  }
  void queue_turn(std::coroutine_handle<> waiter);
  /// Resumes those that waited for a turn when this was called, as far as the inline budget goes.
  void give_turns();
  /// Makes fd() readable, for those that wait for a turn.
  void ring_bell();
  /// Hands the queue to the kernel and returns when something has ended.
  void wait_for_completion();
  void run_once_on_threads(bool wait);

  /// Waiting for an entry of the queue, to start or to be cancelled.
  struct Overflow {
    Operation* operation;
    bool cancel;
  };

  io_uring ring_{};
  std::unique_ptr<ThreadQueue> threads_;  ///< in its place
  std::optional<Error> refused_;
  std::deque<Overflow> overflow_;
  std::deque<std::coroutine_handle<>> turns_;  ///< waiting for a turn; each counts as in flight
  std::size_t in_flight_ = 0;
  std::size_t file_operations_ = 0;  ///< of those in flight
  bool may_watch_ = false;
  bool watch_pays_ = false;  ///< the last wait was a short one
  unsigned inline_budget_ = kInlineBudget;
  bool dispatching_ = false;
};

}  // namespace whistler
