#include "vmm/event_loop.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <utility>

namespace whistler {

Result<std::unique_ptr<EventLoop>> EventLoop::create(std::mutex& machine_lock, HostClock& clock,
                                                     TimerQueue& timers) {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wake.get();
  if (!epoll || !wake || ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0) {
    return fail_errno(errno, "event loop: epoll cannot be set up");
  }
  return std::unique_ptr<EventLoop>(
      new EventLoop(machine_lock, clock, timers, std::move(epoll), std::move(wake)));
}

EventLoop::EventLoop(std::mutex& machine_lock, HostClock& clock, TimerQueue& timers, UniqueFd epoll,
                     UniqueFd wake_fd)
    : machine_lock_(machine_lock),
      clock_(clock),
      timers_(timers),
      epoll_(std::move(epoll)),
      wake_(std::move(wake_fd)) {
  timers_.on_earlier_deadline([this] { wake(); });
}

void EventLoop::watch(int fd, std::uint32_t events, Callback callback) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  const bool known = callbacks_.contains(fd);
  callbacks_[fd] = std::make_shared<Callback>(std::move(callback));
  ::epoll_ctl(epoll_.get(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
}

void EventLoop::unwatch(int fd) {
  if (callbacks_.erase(fd) != 0) {
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  }
}

void EventLoop::post(std::function<void()> function) {
  {
    std::scoped_lock lock(posted_lock_);
    posted_.push_back(std::move(function));
  }
  wake();
}

void EventLoop::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
}

void EventLoop::run_once(Nanoseconds most) {
  {
    std::scoped_lock lock(machine_lock_);
    const auto deadline = timers_.next_deadline();
    if (deadline && clock_.running()) {
      const auto until = std::max<Nanoseconds>(0, *deadline - clock_.now());
      most = most < 0 ? until : std::min(most, until);
    }
  }
  std::array<epoll_event, 16> events{};
  timespec timeout{most / kNanosecondsPerSecond, most % kNanosecondsPerSecond};
  const int count = ::epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   most < 0 ? nullptr : &timeout, nullptr);

  std::scoped_lock lock(machine_lock_);
  for (int i = 0; i < count; ++i) {
    const auto& event = events[static_cast<std::size_t>(i)];
    if (event.data.fd == wake_.get()) {
      std::uint64_t ignored = 0;
      [[maybe_unused]] const auto got = ::read(wake_.get(), &ignored, sizeof ignored);
      continue;
    }
    // A callback may unwatch itself or others; what it needs of itself stays alive until it returns.
    if (const auto found = callbacks_.find(event.data.fd); found != callbacks_.end()) {
      const auto callback = found->second;
      (*callback)(event.events);
    }
  }
  std::vector<std::function<void()>> posted;
  {
    std::scoped_lock posted_lock(posted_lock_);
    posted.swap(posted_);
  }
  for (const auto& function : posted) {
    function();
  }
  if (clock_.running()) {
    timers_.run_expired();
  }
}

}  // namespace whistler
