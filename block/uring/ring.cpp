#include "block/uring/ring.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <system_error>
#include <thread>

#include "block/uring/thread_queue.hpp"

namespace whistler {

namespace {

/// Completions taken from the kernel at a time; two such batches a call of run_once() keep the event loop
/// fair.
constexpr unsigned kBatch = 64;
constexpr unsigned kBatchesPerTurn = 2;
constexpr unsigned kMaxEntries = 4096;
/// Operations started while completions are dealt with go to the kernel in groups of this many: one system
/// call for all would leave the disk idle until the last completion is dealt with, one for each costs more
/// than it gains.
constexpr unsigned kSubmitGroup = 2;
/// How long a wait for the disk may be to be spent awake. Falling asleep and waking up again cost 15 us of
/// the 50 us that a read takes a virtual machine's disk or an NVMe drive; beside a spinning disk it is
/// nothing.
constexpr std::chrono::microseconds kLongestWatch{100};

std::int32_t result_of(ssize_t returned) {
  return returned < 0 ? -errno : static_cast<std::int32_t>(returned);
}

/// Has the kernel's workers, of which there are none yet, run on all processors that this thread may use but
/// the one it is on. In a virtual machine a processor that sleeps may not look free to the scheduler, which
/// then leaves a worker beside the thread that woke it for tens of milliseconds, each waiting for the other.
void keep_workers_elsewhere(io_uring& ring) {
  cpu_set_t processors{};
  const int own = ::sched_getcpu();
  if (own < 0 || ::sched_getaffinity(0, sizeof processors, &processors) != 0) {
    return;
  }
  CPU_CLR(static_cast<unsigned>(own), &processors);
  if (CPU_COUNT(&processors) != 0) {
    io_uring_register_iowq_aff(&ring, sizeof processors, &processors);  // Linux 5.14; it helps, no more
  }
}

}  // namespace

Error Ring::unavailable(int errnum) {
  const auto reason = std::generic_category().message(errnum);
  if (errnum == EPERM || errnum == EACCES) {
    return {
        ErrorCode::kUnsupported, errnum,
        fmt::format(
            "io_uring is refused by this host ({}): set /proc/sys/kernel/io_uring_disabled to 0 "
            "(sysctl kernel.io_uring_disabled=0), or allow io_uring_setup in the container's seccomp profile",
            reason)};
  }
  if (errnum == ENOSYS) {
    return {ErrorCode::kUnsupported, errnum,
            "this kernel has no io_uring: Linux 5.6 or later, built with CONFIG_IO_URING, is needed"};
  }
  return {code_from_errno(errnum), errnum,
          fmt::format("io_uring cannot be set up: {} (ENOMEM means the limit of locked memory, ulimit -l)",
                      reason)};
}

Result<std::unique_ptr<Ring>> Ring::create_for_tool() {
  auto ring = create(128, Notice::kNextEntry);
  if (ring && !(*ring)->threads_ && std::thread::hardware_concurrency() > 1) {
    (*ring)->may_watch_ = true;  // who is awake must not keep others waiting
    keep_workers_elsewhere((*ring)->ring_);
  }
  return ring;
}

Result<std::unique_ptr<Ring>> Ring::create(unsigned entries, Notice notice) {
  const char* const wish = std::getenv("WHISTLER_IO_URING");
  if (wish != nullptr && std::string_view(wish) == "off") {
    return create_on_threads(
        {ErrorCode::kUnsupported, 0, "io_uring is switched off by WHISTLER_IO_URING=off"});
  }
  const auto length = std::clamp(entries, 1U, kMaxEntries);
  io_uring ring{};
  int error = -EINVAL;
  if (notice == Notice::kNextEntry) {  // Linux 5.19
    io_uring_params params{};
    params.flags = IORING_SETUP_CLAMP | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    error = io_uring_queue_init_params(length, &ring, &params);
  }
  if (error == -EINVAL) {
    io_uring_params params{};
    params.flags = IORING_SETUP_CLAMP;
    error = io_uring_queue_init_params(length, &ring, &params);
  }
  if (error == -EPERM || error == -EACCES || error == -ENOSYS || error == -ENOMEM) {
    return create_on_threads(unavailable(-error));
  }
  if (error < 0) {
    return std::unexpected(unavailable(-error));
  }
  return std::unique_ptr<Ring>(new Ring(ring));
}

Result<std::unique_ptr<Ring>> Ring::create_on_threads(Error refused) {
  auto threads = ThreadQueue::create();
  if (!threads) {
    return std::unexpected(threads.error());
  }
  return std::unique_ptr<Ring>(new Ring(std::move(*threads), std::move(refused)));
}

Ring::Ring(const io_uring& ring) : ring_(ring) {}

Ring::Ring(std::unique_ptr<ThreadQueue> threads, Error refused)
    : threads_(std::move(threads)), refused_(std::move(refused)) {}

Ring::~Ring() {
  if (!threads_) {
    io_uring_queue_exit(&ring_);
  }
}

int Ring::fd() const { return threads_ ? threads_->fd() : ring_.ring_fd; }

void Ring::Operation::prepare(io_uring_sqe& sqe) {
  switch (kind_) {
    case Kind::kReadv:
      io_uring_prep_readv2(&sqe, file_, static_cast<const iovec*>(memory_), count_, offset_, flags_);
      break;
    case Kind::kWritev:
      io_uring_prep_writev2(&sqe, file_, static_cast<const iovec*>(memory_), count_, offset_, flags_);
      break;
    case Kind::kFdatasync: io_uring_prep_fsync(&sqe, file_, IORING_FSYNC_DATASYNC); break;
    case Kind::kFallocate:
      io_uring_prep_fallocate(&sqe, file_, flags_, static_cast<off_t>(offset_), static_cast<off_t>(bytes_));
      break;
    case Kind::kAccept: io_uring_prep_accept(&sqe, file_, nullptr, nullptr, SOCK_CLOEXEC); break;
    case Kind::kConnect:
      io_uring_prep_connect(&sqe, file_, static_cast<const sockaddr*>(memory_),
                            static_cast<socklen_t>(bytes_));
      break;
    case Kind::kRecv: io_uring_prep_recv(&sqe, file_, const_cast<void*>(memory_), bytes_, flags_); break;
    case Kind::kSendmsg:
      io_uring_prep_sendmsg(&sqe, file_, static_cast<const msghdr*>(memory_), static_cast<unsigned>(flags_));
      break;
    case Kind::kPoll: io_uring_prep_poll_add(&sqe, file_, static_cast<unsigned>(flags_)); break;
    case Kind::kTimeout: io_uring_prep_timeout(&sqe, &duration_, 0, 0); break;
  }
  if (aside_) {
    io_uring_sqe_set_flags(&sqe, IOSQE_ASYNC);
  }
  io_uring_sqe_set_data(&sqe, this);
}

void Ring::Operation::run_blocking() {
  const auto offset = static_cast<off_t>(offset_);
  const auto count = static_cast<int>(count_);
  do {
    switch (kind_) {
      case Kind::kReadv:
        result_ = result_of(::preadv2(file_, static_cast<const iovec*>(memory_), count, offset, flags_));
        break;
      case Kind::kWritev:
        result_ = result_of(::pwritev2(file_, static_cast<const iovec*>(memory_), count, offset, flags_));
        break;
      case Kind::kFdatasync: result_ = result_of(::fdatasync(file_)); break;
      case Kind::kFallocate:
        result_ = result_of(::fallocate(file_, flags_, offset, static_cast<off_t>(bytes_)));
        break;
      default: result_ = -EAGAIN; break;  // never waited for in a call: see start()
    }
  } while (result_ == -EINTR);
}

Ring::Operation Ring::readv(int file, std::uint64_t offset, const iovec* vec, unsigned count, int flags) {
  Operation operation(*this, Operation::Kind::kReadv, file);
  operation.offset_ = offset;
  operation.memory_ = vec;
  operation.count_ = count;
  operation.flags_ = flags;
  return operation;
}

Ring::Operation Ring::writev(int file, std::uint64_t offset, const iovec* vec, unsigned count, int flags,
                             bool aside) {
  auto operation = readv(file, offset, vec, count, flags);
  operation.kind_ = Operation::Kind::kWritev;
  operation.aside_ = aside;
  return operation;
}

Ring::Operation Ring::fdatasync(int file) { return {*this, Operation::Kind::kFdatasync, file}; }

Ring::Operation Ring::fallocate(int file, int mode, std::uint64_t offset, std::uint64_t bytes) {
  Operation operation(*this, Operation::Kind::kFallocate, file);
  operation.flags_ = mode;
  operation.offset_ = offset;
  operation.bytes_ = bytes;
  return operation;
}

Ring::Operation Ring::accept(int socket) { return {*this, Operation::Kind::kAccept, socket}; }

Ring::Operation Ring::connect(int socket, const sockaddr* address, socklen_t bytes) {
  Operation operation(*this, Operation::Kind::kConnect, socket);
  operation.memory_ = address;
  operation.bytes_ = bytes;
  return operation;
}

Ring::Operation Ring::recv(int socket, void* to, std::size_t bytes, int flags) {
  Operation operation(*this, Operation::Kind::kRecv, socket);
  operation.memory_ = to;
  operation.bytes_ = bytes;
  operation.flags_ = flags;
  return operation;
}

Ring::Operation Ring::sendmsg(int socket, const msghdr* message, int flags) {
  Operation operation(*this, Operation::Kind::kSendmsg, socket);
  operation.memory_ = message;
  operation.flags_ = flags;
  return operation;
}

Ring::Operation Ring::poll(int file, short events) {
  Operation operation(*this, Operation::Kind::kPoll, file);
  operation.flags_ = events;
  return operation;
}

Ring::Operation Ring::timeout(std::chrono::nanoseconds duration) {
  Operation operation(*this, Operation::Kind::kTimeout, -1);
  const auto seconds = std::chrono::floor<std::chrono::seconds>(duration);
  operation.duration_.tv_sec = seconds.count();
  operation.duration_.tv_nsec = (duration - seconds).count();
  return operation;
}

void Ring::queue_cancel(Operation& operation, io_uring_sqe& entry) {
  io_uring_prep_cancel(&entry, &operation, 0);
  io_uring_sqe_set_data(&entry, nullptr);
  ++in_flight_;
}

void Ring::cancel(Operation& operation) {
  if (threads_) {
    threads_->cancel(operation);
    return;
  }
  const auto same = [&](const Overflow& waiting) { return waiting.operation == &operation; };
  io_uring_sqe* entry = std::none_of(overflow_.begin(), overflow_.end(), same) ? get_entry() : nullptr;
  if (entry == nullptr) {
    overflow_.push_back({&operation, true});
    return;
  }
  queue_cancel(operation, *entry);
  if (!dispatching_) {
    submit();
  }
}

io_uring_sqe* Ring::get_entry() {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  if (entry == nullptr) {
    submit();
    entry = io_uring_get_sqe(&ring_);
  }
  return entry;
}

void Ring::queue_overflow() {
  while (!overflow_.empty()) {
    io_uring_sqe* entry = get_entry();
    if (entry == nullptr) {
      return;
    }
    const auto waiting = overflow_.front();
    overflow_.pop_front();
    if (waiting.cancel) {
      queue_cancel(*waiting.operation, *entry);
    } else {
      waiting.operation->prepare(*entry);
    }
  }
}

void Ring::submit() {
  // EAGAIN and EBUSY mean "later": the entries stay queued, and run_once() submits again.
  while (io_uring_sq_ready(&ring_) != 0 && io_uring_submit(&ring_) == -EINTR) {
  }
}

bool Ring::start(Operation& operation, std::coroutine_handle<> waiter) {
  operation.waiter_ = waiter;
  if (threads_) {
    ++in_flight_;
    threads_->start(operation);
    return true;
  }
  io_uring_sqe* sqe = overflow_.empty() ? get_entry() : nullptr;
  if (sqe == nullptr && operation.is_file()) {
    operation.run_blocking();
    return false;
  }
  if (sqe == nullptr) {
    overflow_.push_back({&operation, false});
    ++in_flight_;
    return true;
  }
  operation.prepare(*sqe);
  ++in_flight_;
  file_operations_ += operation.is_file() ? 1 : 0;
  if (dispatching_) {
    if (io_uring_sq_ready(&ring_) >= kSubmitGroup) {
      submit();
    }
    return true;
  }
  submit();
  io_uring_cqe* cqe = nullptr;
  if (io_uring_peek_cqe(&ring_, &cqe) == 0 && io_uring_cqe_get_data(cqe) == &operation &&
      take_inline_turn()) {
    operation.result_ = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    --in_flight_;
    file_operations_ -= operation.is_file() ? 1 : 0;
    return false;
  }
  // Completions of others are left where they are: fd() stays readable, and run_once() resumes them from a
  // clean stack.
  return true;
}

void Ring::ring_bell() {
  if (io_uring_sqe* entry = get_entry(); entry != nullptr) {  // otherwise what is in flight will do it
    io_uring_prep_nop(entry);
    io_uring_sqe_set_data(entry, nullptr);
    ++in_flight_;
  }
}

void Ring::queue_turn(std::coroutine_handle<> waiter) {
  turns_.push_back(waiter);
  ++in_flight_;
  if (threads_) {
    threads_->ring_bell();
  } else if (!dispatching_ && turns_.size() == 1) {
    ring_bell();
    submit();
  }
}

void Ring::give_turns() {
  for (auto waiting = turns_.size(); waiting != 0 && take_inline_turn(); --waiting) {
    const auto waiter = turns_.front();
    turns_.pop_front();
    --in_flight_;
    waiter.resume();
  }
}

void Ring::wait_for_completion() {
  if (!may_watch_ || file_operations_ != in_flight_) {
    io_uring_submit_and_wait(&ring_, 1);
    return;
  }
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  if (watch_pays_) {
    submit();
    do {
      if ((__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN) != 0) {
        io_uring_get_events(&ring_);
      }
      if (io_uring_cq_ready(&ring_) != 0) {
        return;
      }
      __builtin_ia32_pause();
    } while (Clock::now() - begin < kLongestWatch);
  }
  io_uring_submit_and_wait(&ring_, 1);
  watch_pays_ = Clock::now() - begin < kLongestWatch;
}

void Ring::run_once_on_threads(bool wait) {
  std::array<Operation*, kBatch * kBatchesPerTurn> ended{};
  const auto count = threads_->take(ended, wait && in_flight_ != 0 && turns_.empty());
  in_flight_ -= count;
  give_turns();
  for (std::size_t i = 0; i < count; ++i) {
    ended[i]->waiter_.resume();
  }
  if (!turns_.empty()) {
    threads_->ring_bell();
  }
}

void Ring::run_once(bool wait) {
  if (threads_) {
    inline_budget_ = kInlineBudget;
    run_once_on_threads(wait);
    return;
  }
  inline_budget_ = kInlineBudget;
  dispatching_ = true;
  queue_overflow();
  if (wait && in_flight_ != 0 && turns_.empty() && io_uring_cq_ready(&ring_) == 0) {
    wait_for_completion();
  } else {
    submit();
  }
  give_turns();
  std::array<io_uring_cqe*, kBatch> completions{};
  std::array<Operation*, kBatch> ended{};
  for (unsigned turn = 0; turn < kBatchesPerTurn; ++turn) {
    const unsigned count = io_uring_peek_batch_cqe(&ring_, completions.data(), kBatch);
    for (unsigned i = 0; i < count; ++i) {
      ended[i] = static_cast<Operation*>(io_uring_cqe_get_data(completions[i]));
      if (ended[i] != nullptr) {  // a cancellation or the bell has nobody waiting
        ended[i]->result_ = completions[i]->res;
        file_operations_ -= ended[i]->is_file() ? 1 : 0;
      }
    }
    io_uring_cq_advance(&ring_, count);
    in_flight_ -= count;
    for (unsigned i = 0; i < count; ++i) {
      if (ended[i] != nullptr) {
        ended[i]->waiter_.resume();
      }
    }
    if (count < kBatch) {
      break;
    }
  }
  dispatching_ = false;
  queue_overflow();
  if (!turns_.empty()) {
    ring_bell();
  }
  submit();
}

}  // namespace whistler
