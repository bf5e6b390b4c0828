#include "block/uring/stoppable.hpp"

#include <semaphore>

#include "block/test_support.hpp"

using namespace whistler;
using namespace whistler::test;

TEST_CASE("stopped_wait_ends_at_once", "[stop]") {
  const auto ring = make_ring();
  Stop stop;
  std::optional<std::int32_t> result;
  spawn(stoppable(*ring, ring->timeout(std::chrono::hours(1)), &stop),
        [&](std::int32_t value) { result = value; });
  ring->run_once(false);
  CHECK_FALSE(result);
  stop.ask("enough");
  while (!result) {
    ring->run_once(true);
  }
  CHECK(result == -ECANCELED);
  CHECK(stop.why() == "enough");
  CHECK(sync_wait(*ring, stoppable(*ring, ring->timeout(std::chrono::hours(1)), &stop)) == -ECANCELED);
}

TEST_CASE("wait_without_a_stop_ends_by_itself", "[stop]") {
  const auto ring = make_ring();
  CHECK(sync_wait(*ring, stoppable(*ring, ring->timeout(std::chrono::milliseconds(1)), nullptr)) == -ETIME);
}

TEST_CASE("call_in_a_thread_keeps_nobody_waiting", "[stop]") {
  const auto ring = make_ring();
  Stop stop;
  const auto gate = std::make_shared<std::binary_semaphore>(0);
  auto call = [gate] {
    gate->acquire();
    return std::string("there");
  };
  std::optional<std::optional<std::string>> result;
  spawn(in_thread(*ring, call, &stop), [&](std::optional<std::string> value) { result = std::move(value); });
  ring->run_once(false);
  CHECK_FALSE(result);
  gate->release();
  while (!result) {
    ring->run_once(true);
  }
  CHECK(result == std::optional<std::string>("there"));
}

TEST_CASE("call_that_never_returns_is_left_to_itself", "[stop]") {
  const auto ring = make_ring();
  Stop stop;
  const auto gate = std::make_shared<std::binary_semaphore>(0);
  auto call = [gate] {
    gate->acquire();
    return 5;
  };
  std::optional<std::optional<int>> result;
  spawn(in_thread(*ring, call, &stop), [&](std::optional<int> value) { result = value; });
  stop.ask("enough");
  while (!result) {
    ring->run_once(true);
  }
  CHECK(*result == std::nullopt);
  gate->release();  // its thread ends some time
}

TEST_CASE("listener_may_outlive_what_it_listens_to", "[stop]") {
  auto stop = std::make_unique<Stop>();
  int asked = 0;
  const Stop::Listener listener(stop.get(), [&] { ++asked; });
  {
    const Stop::Listener shorter(stop.get(), [&] { asked += 10; });
  }
  CHECK(listener.stop() == stop.get());
  SECTION("that is asked for") {
    stop->ask("a");
    stop->ask("b");
    CHECK(asked == 1);
    CHECK(stop->why() == "a");
  }
  SECTION("that is never asked for") { CHECK(asked == 0); }
  stop.reset();
  CHECK(listener.stop() == nullptr);
}
