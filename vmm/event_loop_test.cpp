#include "vmm/event_loop.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <thread>

using namespace whistler;

namespace {

struct Fixture {
  std::mutex lock;
  HostClock clock;
  TimerQueue timers{clock};
  std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create(lock, clock, timers));
  UniqueFd in, out;
  Fixture() {
    std::array<int, 2> ends{};
    REQUIRE(::pipe(ends.data()) == 0);
    in = UniqueFd(ends[0]);
    out = UniqueFd(ends[1]);
  }
  void put() { REQUIRE(::write(out.get(), "x", 1) == 1); }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "ready_descriptor_calls_back_until_unwatched", "[event_loop]") {
  int calls = 0;
  loop->watch(in.get(), EPOLLIN, [&](std::uint32_t) { ++calls; });
  loop->run_once(0);
  REQUIRE(calls == 0);
  put();
  loop->run_once(0);
  loop->run_once(0);
  REQUIRE(calls == 2);
  loop->unwatch(in.get());
  loop->run_once(0);
  REQUIRE(calls == 2);
}

TEST_CASE_METHOD(Fixture, "callback_may_unwatch_itself", "[event_loop]") {
  std::string kept = "a string long enough to live on the heap, so that a sanitizer sees its end";
  std::size_t seen = 0;
  loop->watch(in.get(), EPOLLIN, [this, kept, &seen](std::uint32_t) {
    loop->unwatch(in.get());
    seen = kept.size();
  });
  put();
  loop->run_once(0);
  REQUIRE(seen == kept.size());
}

TEST_CASE_METHOD(Fixture, "posted_functions_run_once_and_may_post_again", "[event_loop]") {
  int runs = 0;
  loop->post([&] {
    ++runs;
    loop->post([&] { runs += 10; });
  });
  loop->run_once(0);
  REQUIRE(runs == 1);
  loop->run_once(0);
  loop->run_once(0);
  REQUIRE(runs == 11);
}

TEST_CASE_METHOD(Fixture, "post_from_another_thread_wakes_the_loop", "[event_loop]") {
  bool ran = false;
  std::thread other([&] { loop->post([&] { ran = true; }); });
  while (!ran) {
    loop->run_once(-1);
  }
  other.join();
  REQUIRE(ran);
}

TEST_CASE_METHOD(Fixture, "deadlines_count_only_while_the_clock_runs", "[event_loop]") {
  bool expired = false;
  Timer timer(timers, [&] { expired = true; });
  timer.arm_after(0);
  loop->run_once(0);
  REQUIRE_FALSE(expired);
  clock.start();
  loop->run_once(-1);
  REQUIRE(expired);
}
