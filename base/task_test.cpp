#include "base/task.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "base/async.hpp"

using namespace whistler;

namespace {

Task<int> answer() { co_return 42; }

Task<int> add_one(Task<int> inner) {
  const int value = co_await std::move(inner);
  co_return value + 1;
}

Task<void> wait_then_note(WaitQueue& queue, std::vector<int>& notes, int note) {
  co_await queue.wait();
  notes.push_back(note);
}

Task<void> hold_and_note(AsyncMutex& mutex, WaitQueue& queue, std::vector<int>& notes, int note) {
  auto guard = co_await mutex.lock();
  notes.push_back(note);
  co_await queue.wait();
}

}  // namespace

TEST_CASE("nested_tasks_return_values_inline", "[task]") {
  int result = 0;
  spawn(add_one(answer()), [&](int value) { result = value; });
  REQUIRE(result == 43);
}

TEST_CASE("unawaited_task_is_freed_without_running", "[task]") {
  {
    auto task = answer();
  }
  SUCCEED("no leak: checked by the address sanitizer");
}

TEST_CASE("wait_queue_wakes_in_order", "[task]") {
  WaitQueue queue;
  std::vector<int> notes;
  spawn(wait_then_note(queue, notes, 1));
  spawn(wait_then_note(queue, notes, 2));
  REQUIRE(notes.empty());
  queue.wake_one();
  REQUIRE(notes == std::vector{1});
  queue.wake_all();
  REQUIRE(notes == std::vector{1, 2});
}

TEST_CASE("async_mutex_admits_one_at_a_time_in_order", "[task]") {
  AsyncMutex mutex;
  WaitQueue queue;
  std::vector<int> notes;
  spawn(hold_and_note(mutex, queue, notes, 1));
  spawn(hold_and_note(mutex, queue, notes, 2));
  REQUIRE(notes == std::vector{1});
  queue.wake_one();
  REQUIRE(notes == std::vector{1, 2});
  queue.wake_one();
  REQUIRE_FALSE(mutex.held());
}

TEST_CASE("gate_drains_when_the_last_pass_is_gone", "[task]") {
  Gate gate;
  bool drained = false;
  {
    auto pass = gate.enter();
    spawn(gate.drain(), [&] { drained = true; });
    REQUIRE_FALSE(drained);
  }
  REQUIRE(drained);
}
