#include "block/uring/thread_queue.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <system_error>

namespace whistler {

namespace {

constexpr std::size_t kMostWorkers = 16;
/// A unix socket whose listener has no room for one more connection tells nobody when it has.
constexpr std::chrono::milliseconds kConnectAgain{10};

std::int32_t result_of(ssize_t returned) {
  return returned < 0 ? -errno : static_cast<std::int32_t>(returned);
}

void add_one(const UniqueFd& event) {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(event.get(), &one, sizeof one);
}

void clear(const UniqueFd& event) {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto read = ::read(event.get(), &count, sizeof count);
}

/// Signals are for the threads that expect them.
void block_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

}  // namespace

Result<std::unique_ptr<ThreadQueue>> ThreadQueue::create() {
  UniqueFd bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!bell || !wake) {
    return fail_errno(errno, "cannot have an event descriptor");
  }
  return std::unique_ptr<ThreadQueue>(new ThreadQueue(std::move(bell), std::move(wake)));
}

ThreadQueue::~ThreadQueue() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  work_there_.notify_all();
  add_one(wake_);
  for (auto* const threads : {&workers_, &watcher_}) {
    for (auto& thread : *threads) {
      thread.join();
    }
  }
}

bool ThreadQueue::start_thread(std::vector<std::thread>& threads, void (ThreadQueue::*body)()) {
  try {
    threads.emplace_back([this, body] {
      block_signals();
      (this->*body)();
    });
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

void ThreadQueue::start(Operation& operation) {
  const std::lock_guard lock(mutex_);
  if (operation.is_file()) {
    start_file_operation(operation);
  } else {
    start_waiting(operation);
  }
}

void ThreadQueue::start_file_operation(Operation& operation) {
  const bool enough = work_.size() < idle_ || workers_.size() == kMostWorkers;
  if (!enough && !start_thread(workers_, &ThreadQueue::work) && workers_.empty()) {
    operation.run_blocking();  // then this thread has to do it
    end(operation, operation.result_);
    return;
  }
  work_.push_back(&operation);
  work_there_.notify_one();
}

void ThreadQueue::start_waiting(Operation& operation) {
  using Kind = Operation::Kind;
  const auto kind = operation.kind_;
  Waiting waiting{.number = next_number_++, .operation = &operation, .events = POLLIN};
  if (kind == Kind::kSendmsg) {
    waiting.events = POLLOUT;
  } else if (kind == Kind::kPoll) {
    waiting.events = static_cast<short>(operation.flags_);
  } else if (kind == Kind::kTimeout) {
    waiting.events = 0;
    waiting.until = Clock::now() + std::chrono::seconds(operation.duration_.tv_sec) +
                    std::chrono::nanoseconds(operation.duration_.tv_nsec);
  } else if (kind == Kind::kConnect) {
    waiting.events = 0;
    waiting.until = Clock::now();
    waiting.socket_flags = ::fcntl(operation.file_, F_GETFL);
    ::fcntl(operation.file_, F_SETFL, waiting.socket_flags | O_NONBLOCK);
  }
  if (kind == Kind::kRecv || kind == Kind::kSendmsg || kind == Kind::kConnect) {
    if (const auto result = attempt(waiting, waiting.events, Clock::now())) {
      end_waiting(waiting, *result);
      return;
    }
  }
  if (watcher_.empty() && !start_thread(watcher_, &ThreadQueue::watch)) {
    end_waiting(waiting, -EAGAIN);
    return;
  }
  waiting_.push_back(waiting);
  add_one(wake_);
}

void ThreadQueue::cancel(Operation& operation) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const Waiting& each) { return each.operation == &operation; });
  if (found != waiting_.end()) {
    end_waiting(*found, -ECANCELED);
    waiting_.erase(found);
  }
}

void ThreadQueue::signal() {
  if (!ringing_) {
    ringing_ = true;
    add_one(bell_);
  }
}

void ThreadQueue::ring_bell() {
  const std::lock_guard lock(mutex_);
  signal();
}

void ThreadQueue::end(Operation& operation, std::int32_t result) {
  operation.result_ = result;
  ended_.push_back(&operation);
  signal();
  ended_there_.notify_one();
}

void ThreadQueue::end_waiting(Waiting& waiting, std::int32_t result) {
  if (waiting.socket_flags != -1) {
    ::fcntl(waiting.operation->file_, F_SETFL, waiting.socket_flags);
  }
  end(*waiting.operation, result);
}

std::size_t ThreadQueue::take(std::span<Operation*> ended, bool wait) {
  std::unique_lock lock(mutex_);
  if (wait) {
    ended_there_.wait(lock, [&] { return !ended_.empty(); });
  }
  const auto count = std::min(ended.size(), ended_.size());
  std::copy_n(ended_.begin(), count, ended.begin());
  ended_.erase(ended_.begin(), ended_.begin() + static_cast<std::ptrdiff_t>(count));
  if (ringing_ && ended_.empty()) {
    clear(bell_);
    ringing_ = false;
  }
  return count;
}

void ThreadQueue::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    work_there_.wait(lock, [&] { return !work_.empty() || ending_; });
    --idle_;
    if (work_.empty()) {
      return;
    }
    auto& operation = *work_.front();
    work_.pop_front();
    lock.unlock();
    operation.run_blocking();
    lock.lock();
    end(operation, operation.result_);
  }
}

std::optional<std::int32_t> ThreadQueue::attempt_connect(Waiting& waiting, short events,
                                                         Clock::time_point now) {
  const auto& operation = *waiting.operation;
  if ((waiting.events & POLLOUT) != 0) {  // under way
    if (events == 0) {
      return std::nullopt;
    }
    int error = 0;
    socklen_t bytes = sizeof error;
    if (::getsockopt(operation.file_, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0) {
      error = errno;
    }
    return -error;
  }
  if (now < *waiting.until) {
    return std::nullopt;
  }
  const auto result = result_of(::connect(operation.file_, static_cast<const sockaddr*>(operation.memory_),
                                          static_cast<socklen_t>(operation.bytes_)));
  if (result == -EINPROGRESS) {
    waiting.events = POLLOUT;
    waiting.until.reset();
    return std::nullopt;
  }
  if (result == -EAGAIN) {
    waiting.until = now + kConnectAgain;
    return std::nullopt;
  }
  return result;
}

std::optional<std::int32_t> ThreadQueue::attempt(Waiting& waiting, short events, Clock::time_point now) {
  using Kind = Operation::Kind;
  const auto& operation = *waiting.operation;
  if (operation.kind_ == Kind::kConnect) {
    return attempt_connect(waiting, events, now);
  }
  if (operation.kind_ == Kind::kTimeout) {
    return now < *waiting.until ? std::nullopt : std::optional<std::int32_t>(-ETIME);
  }
  if (events == 0) {
    return std::nullopt;
  }
  std::int32_t result = 0;
  switch (operation.kind_) {
    case Kind::kAccept: result = result_of(::accept4(operation.file_, nullptr, nullptr, SOCK_CLOEXEC)); break;
    case Kind::kRecv:
      result = result_of(::recv(operation.file_, const_cast<void*>(operation.memory_), operation.bytes_,
                                operation.flags_ | MSG_DONTWAIT));
      break;
    case Kind::kSendmsg:
      result = result_of(::sendmsg(operation.file_, static_cast<const msghdr*>(operation.memory_),
                                   operation.flags_ | MSG_DONTWAIT));
      break;
    default: result = events; break;  // poll
  }
  return result == -EAGAIN || result == -EINTR ? std::nullopt : std::optional(result);
}

void ThreadQueue::watch() {
  std::vector<pollfd> polled;
  std::vector<std::uint64_t> numbers;  // of what was polled, behind the first
  std::unique_lock lock(mutex_);
  while (!ending_) {
    polled.assign(1, {wake_.get(), POLLIN, 0});
    numbers.clear();
    std::optional<Clock::time_point> next;
    for (const auto& each : waiting_) {
      polled.push_back({each.events != 0 ? each.operation->file_ : -1, each.events, 0});
      numbers.push_back(each.number);
      if (each.until && (!next || *each.until < *next)) {
        next = each.until;
      }
    }
    lock.unlock();
    timespec time{};
    if (next) {
      const auto left = std::max(*next - Clock::now(), Clock::duration::zero());
      const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
      time = {.tv_sec = seconds.count(), .tv_nsec = (left - seconds).count()};
    }
    const auto found = ::ppoll(polled.data(), polled.size(), next ? &time : nullptr, nullptr);
    if (found > 0 && polled[0].revents != 0) {
      clear(wake_);
    }
    lock.lock();
    const auto now = Clock::now();
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const auto each = std::find_if(waiting_.begin(), waiting_.end(),
                                     [&](const Waiting& one) { return one.number == numbers[i]; });
      if (each == waiting_.end()) {  // cancelled meanwhile
        continue;
      }
      const auto events = found > 0 ? polled[i + 1].revents : short{0};
      if (const auto result = attempt(*each, events, now)) {
        end_waiting(*each, *result);
        waiting_.erase(each);
      }
    }
  }
}

}  // namespace whistler
