#include "block/range_lock.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "base/async.hpp"

using namespace whistler;

namespace {

using Mode = RangeLock::Mode;

struct Bench {
  RangeLock lock;
  WaitQueue a, b, c;
  std::string notes;
};

Task<void> hold(Bench& bench, std::uint64_t begin, std::uint64_t end, Mode mode, char note,
                WaitQueue& until) {
  RangeLock::Hold held(bench.lock, begin, end, mode);
  co_await held;
  bench.notes += note;
  co_await until.wait();
}

}  // namespace

TEST_CASE("range_lock_lets_disjoint_and_shared_ranges_in_at_once", "[range_lock]") {
  Bench bench;
  spawn(hold(bench, 0, 10, Mode::kExclusive, 'a', bench.a));
  spawn(hold(bench, 10, 20, Mode::kShared, 'b', bench.b));
  spawn(hold(bench, 15, 30, Mode::kShared, 'c', bench.c));
  CHECK(bench.notes == "abc");
  bench.a.wake_all();
  bench.b.wake_all();
  bench.c.wake_all();
  CHECK(bench.lock.empty());
}

TEST_CASE("range_lock_exclusive_waits_for_earlier_and_holds_back_later", "[range_lock]") {
  Bench bench;
  spawn(hold(bench, 0, 10, Mode::kShared, 'a', bench.a));
  spawn(hold(bench, 5, 15, Mode::kExclusive, 'b', bench.b));
  spawn(hold(bench, 8, 12, Mode::kShared, 'c', bench.c));  // free of a, but b came first
  CHECK(bench.notes == "a");
  bench.a.wake_all();
  CHECK(bench.notes == "ab");
  bench.b.wake_all();
  CHECK(bench.notes == "abc");
  bench.c.wake_all();
  CHECK(bench.lock.empty());
}

TEST_CASE("range_lock_tells_whether_there_is_more_than_one", "[range_lock]") {
  Bench bench;
  CHECK(bench.lock.at_most_one());
  spawn(hold(bench, 0, 10, Mode::kShared, 'a', bench.a));
  CHECK(bench.lock.at_most_one());
  spawn(hold(bench, 100, 110, Mode::kShared, 'b', bench.b));
  CHECK_FALSE(bench.lock.at_most_one());
  bench.a.wake_all();
  bench.b.wake_all();
  CHECK(bench.lock.empty());
}
