#include "base/timer_queue.hpp"

#include <catch2/catch.hpp>
#include <vector>

using namespace whistler;

TEST_CASE("run_expired_calls_due_timers_in_deadline_order", "[timer]") {
  ManualClock clock;
  TimerQueue queue(clock);
  std::vector<int> calls;
  Timer late(queue, [&] { calls.push_back(2); });
  Timer early(queue, [&] { calls.push_back(1); });
  late.arm(20);
  early.arm(10);
  clock.set(15);
  queue.run_expired();
  REQUIRE(calls == std::vector{1});
  REQUIRE(queue.next_deadline() == 20);
}

TEST_CASE("destroyed_timer_is_not_called", "[timer]") {
  ManualClock clock;
  TimerQueue queue(clock);
  {
    Timer timer(queue, [] { FAIL("called"); });
    timer.arm(1);
  }
  clock.set(2);
  queue.run_expired();
  REQUIRE_FALSE(queue.next_deadline().has_value());
}

TEST_CASE("periodic_timer_rearms_from_its_callback", "[timer]") {
  ManualClock clock;
  TimerQueue queue(clock);
  int calls = 0;
  Nanoseconds due = 10;
  Timer* self = nullptr;
  Timer timer(queue, [&] {
    ++calls;
    due += 10;
    self->arm(due);
  });
  self = &timer;
  timer.arm(due);
  clock.set(35);
  queue.run_expired();
  REQUIRE(calls == 3);
  REQUIRE(timer.deadline() == 40);
}

TEST_CASE("earlier_deadline_calls_the_hook_only_when_the_earliest_moves", "[timer]") {
  ManualClock clock;
  TimerQueue queue(clock);
  int wakes = 0;
  queue.on_earlier_deadline([&] { ++wakes; });
  Timer a(queue, [] {});
  Timer b(queue, [] {});
  a.arm(10);
  b.arm(20);
  b.arm(5);
  REQUIRE(wakes == 2);
}

TEST_CASE("ticks_in_and_time_of_tick_are_inverse", "[clock]") {
  constexpr std::uint64_t kPmTimerHertz = 3'579'545;
  REQUIRE(ticks_in(time_of_tick(1'000'003, kPmTimerHertz), kPmTimerHertz) == 1'000'003);
  REQUIRE(ticks_in(time_of_tick(1'000'003, kPmTimerHertz) - 1, kPmTimerHertz) == 1'000'002);
}
