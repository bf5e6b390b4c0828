#include "vmm/pause_when_full.hpp"

#include <catch2/catch.hpp>
#include <optional>

using namespace whistler;

namespace {

/// A disk on a host with room for so many more requests.
class Host final : public BlockDevice {
 public:
  int room = 0;
  int tries = 0;
  ErrorCode refusal = ErrorCode::kNoSpace;

  std::uint64_t size() const override { return 1 << 20; }
  bool read_only() const override { return false; }
  std::string name() const override { return "host"; }
  Task<Result<void>> readv(std::uint64_t, IoVec) override { co_return Result<void>{}; }
  Task<Result<void>> writev(std::uint64_t, IoVec, WriteFlags) override { return request(); }
  Task<Result<void>> flush() override { return request(); }
  Task<Result<void>> discard(std::uint64_t, std::uint64_t) override { return request(); }
  Task<Result<void>> write_zeroes(std::uint64_t, std::uint64_t, ZeroFlags) override { return request(); }
  Task<Result<BlockStatus>> block_status(std::uint64_t, std::uint64_t) override { co_return BlockStatus{}; }
  Task<Result<void>> resize(std::uint64_t) override { return request(); }
  Task<Result<void>> close() override { co_return Result<void>{}; }

 private:
  Task<Result<void>> request() {
    ++tries;
    if (room == 0) {
      co_return fail(refusal, "no");
    }
    --room;
    co_return Result<void>{};
  }
};

struct Fixture {
  int announced = 0;
  SpaceWaiters waiters{[this](const Error&) { ++announced; }};
  Host* host = nullptr;
  std::unique_ptr<PauseWhenFull> disk;
  Fixture() {
    auto below = std::make_unique<Host>();
    host = below.get();
    disk = std::make_unique<PauseWhenFull>(std::move(below), waiters);
  }
  void write(std::optional<Result<void>>& result) {
    spawn(disk->writev(0, {}, {}), [&result](Result<void> done) { result = std::move(done); });
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "request_on_a_full_disk_waits_until_there_is_room", "[pause_when_full]") {
  std::optional<Result<void>> result;
  write(result);
  REQUIRE_FALSE(result.has_value());
  REQUIRE(announced == 1);
  REQUIRE_FALSE(waiters.empty());
  waiters.retry();
  waiters.retry();
  REQUIRE_FALSE(waiters.trying());
  REQUIRE_FALSE(result.has_value());
  REQUIRE(announced == 1);  // one pause, one line
  host->room = 1;
  waiters.retry();
  REQUIRE(result->has_value());
  REQUIRE(waiters.empty());
  REQUIRE(host->tries == 4);
}

TEST_CASE_METHOD(Fixture, "pause_lasts_until_every_request_has_found_room", "[pause_when_full]") {
  std::optional<Result<void>> first;
  std::optional<Result<void>> second;
  write(first);
  write(second);
  host->room = 1;
  waiters.retry();
  REQUIRE(first.has_value());
  REQUIRE_FALSE(second.has_value());
  REQUIRE_FALSE(waiters.empty());
  host->room = 1;
  waiters.retry();
  REQUIRE(second->has_value());
  REQUIRE(announced == 1);
}

TEST_CASE_METHOD(Fixture, "second_shortage_is_announced_again", "[pause_when_full]") {
  std::optional<Result<void>> result;
  write(result);
  host->room = 1;
  waiters.retry();
  write(result);
  REQUIRE(announced == 2);
  waiters.give_up();
}

TEST_CASE_METHOD(Fixture, "given_up_requests_fail_with_the_host_s_error", "[pause_when_full]") {
  std::optional<Result<void>> waiting;
  std::optional<Result<void>> later;
  write(waiting);
  waiters.give_up();
  REQUIRE(waiting->error().code == ErrorCode::kNoSpace);
  REQUIRE(waiters.empty());
  write(later);
  REQUIRE(later->error().code == ErrorCode::kNoSpace);
  REQUIRE(announced == 1);
  std::optional<Result<void>> after;
  waiters.start_over();
  write(after);
  REQUIRE_FALSE(after.has_value());
  waiters.give_up();
}

TEST_CASE_METHOD(Fixture, "other_errors_go_to_the_guest", "[pause_when_full]") {
  host->refusal = ErrorCode::kIo;
  std::optional<Result<void>> result;
  write(result);
  REQUIRE(result->error().code == ErrorCode::kIo);
  REQUIRE(announced == 0);
}

TEST_CASE_METHOD(Fixture, "flush_and_zeroes_wait_too", "[pause_when_full]") {
  int done = 0;
  spawn(disk->flush(), [&](Result<void> result) { done += result.has_value(); });
  spawn(disk->write_zeroes(0, 512, {}), [&](Result<void> result) { done += result.has_value(); });
  host->room = 2;
  waiters.retry();
  REQUIRE(done == 2);
}
