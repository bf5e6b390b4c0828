#include "block/uring/ring.hpp"

#include <fcntl.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <sys/epoll.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "block/test_support.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

Task<std::int32_t> read_one(Ring& ring, int fd, std::uint64_t offset, void* to, std::size_t bytes) {
  const iovec vec{to, bytes};
  const auto result = co_await ring.readv(fd, offset, &vec, 1);
  co_return result;
}

Task<std::int32_t> sync_file(Ring& ring, int fd) {
  const auto result = co_await ring.fdatasync(fd);
  co_return result;
}

struct Pipe {
  int ends[2] = {-1, -1};
  Pipe() { REQUIRE(::pipe2(ends, O_CLOEXEC) == 0); }
  ~Pipe() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
};

Task<void> take_turns(Ring& ring, int count, std::vector<int>& order, int who) {
  for (int i = 0; i < count; ++i) {
    co_await ring.turn();
    order.push_back(who);
  }
}

/// Starts a read whenever the last one ended, from its completion.
struct Chain {
  Ring& ring;
  int fd;
  int left;
  int done = 0;
  char byte = 0;
  void next() {
    if (left-- > 0) {
      spawn(read_one(ring, fd, 0, &byte, 1), [this](std::int32_t) {
        ++done;
        next();
      });
    }
  }
};

}  // namespace

TEST_CASE("ring_read_of_cached_data_ends_inline", "[ring][uring]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(4096, 7));
  const int fd = ::open(directory.file("f").c_str(), O_RDONLY);
  const auto ring = make_ring();
  std::uint8_t byte = 0;
  std::int32_t result = 0;
  spawn(read_one(*ring, fd, 10, &byte, 1), [&](std::int32_t value) { result = value; });
  CHECK(result == 1);
  CHECK(byte == 7);
  CHECK(ring->in_flight() == 0);
  ::close(fd);
}

TEST_CASE("ring_failed_operation_gives_negative_errno", "[ring]") {
  const auto ring = make_ring();
  char byte = 0;
  REQUIRE(sync_wait(*ring, read_one(*ring, -1, 0, &byte, 1)) == -EBADF);
}

TEST_CASE("ring_more_operations_than_queue_entries_all_end", "[ring]") {
  auto ring = Ring::create(4);
  REQUIRE(ring.has_value());
  Pipe pipe;
  constexpr int kCount = 100;
  std::array<char, kCount> bytes{};
  int ended = 0;
  for (char& byte : bytes) {
    spawn(read_one(**ring, pipe.ends[0], ~0ULL, &byte, 1), [&](std::int32_t result) { ended += result; });
  }
  CHECK(ended == 0);
  CHECK((*ring)->in_flight() == kCount);
  REQUIRE(::write(pipe.ends[1], std::string(kCount, 'x').data(), kCount) == kCount);
  while (ended < kCount) {
    (*ring)->run_once(true);
  }
  REQUIRE(std::string(bytes.data(), kCount) == std::string(kCount, 'x'));
}

TEST_CASE("ring_fd_becomes_readable_when_an_operation_ends", "[ring]") {
  const auto ring = make_ring();
  Pipe pipe;
  char byte = 0;
  bool ended = false;
  spawn(read_one(*ring, pipe.ends[0], ~0ULL, &byte, 1), [&](std::int32_t) { ended = true; });
  const int poll = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {}};
  REQUIRE(::epoll_ctl(poll, EPOLL_CTL_ADD, ring->fd(), &event) == 0);
  CHECK(::epoll_wait(poll, &event, 1, 0) == 0);
  REQUIRE(::write(pipe.ends[1], "y", 1) == 1);
  CHECK(::epoll_wait(poll, &event, 1, 1000) == 1);
  ring->run_once(false);
  CHECK(ended);
  CHECK(::epoll_wait(poll, &event, 1, 0) == 0);
  ::close(poll);
}

TEST_CASE("ring_chain_of_cached_reads_does_not_grow_the_stack", "[ring]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(4096, 7));
  const int fd = ::open(directory.file("f").c_str(), O_RDONLY);
  const auto ring = make_ring();
  constexpr int kCount = 20000;  // at some hundred bytes a nested level, this would overflow
  Chain chain{.ring = *ring, .fd = fd, .left = kCount};
  chain.next();
  CHECK(chain.done <= static_cast<int>(Ring::kInlineBudget));
  while (chain.done < kCount) {
    ring->run_once(true);
  }
  CHECK(ring->in_flight() == 0);
  ::close(fd);
}

TEST_CASE("ring_turns_beyond_the_budget_come_from_run_once_and_everyone_gets_some", "[ring]") {
  const auto ring = make_ring();
  std::vector<int> order;
  constexpr int kEach = 200;
  for (int who = 0; who < 3; ++who) {
    spawn(take_turns(*ring, kEach, order, who));
  }
  CHECK(order.size() == Ring::kInlineBudget);
  CHECK(ring->in_flight() != 0);
  const int poll = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {}};
  REQUIRE(::epoll_ctl(poll, EPOLL_CTL_ADD, ring->fd(), &event) == 0);
  std::size_t before = order.size();
  while (order.size() < std::size_t{3 * kEach}) {
    REQUIRE(::epoll_wait(poll, &event, 1, 1000) == 1);  // an event loop learns of them
    ring->run_once(false);
    CHECK(order.size() > before);
    CHECK(order.size() <= before + Ring::kInlineBudget);
    before = order.size();
  }
  // The second had to wait for the first only as long as one budget, not until the first was done.
  CHECK(std::find(order.begin(), order.end(), 1) <= order.begin() + 2 * Ring::kInlineBudget);
  ring->run_once(false);
  CHECK(ring->in_flight() == 0);
  CHECK(::epoll_wait(poll, &event, 1, 0) == 0);
  ::close(poll);
}

TEST_CASE("ring_turns_do_not_keep_operations_from_ending", "[ring]") {
  const auto ring = make_ring();
  std::vector<int> order;
  spawn(take_turns(*ring, 100'000, order, 0));
  Pipe pipe;
  char byte = 0;
  bool ended = false;
  spawn(read_one(*ring, pipe.ends[0], ~0ULL, &byte, 1), [&](std::int32_t) { ended = true; });
  REQUIRE(::write(pipe.ends[1], "y", 1) == 1);
  for (int i = 0; i < 100 && !ended; ++i) {
    ring->run_once(true);
    ::usleep(100);
  }
  CHECK(ended);
  while (order.size() < 100'000) {
    ring->run_once(true);
  }
}

TEST_CASE("ring_for_a_tool_ends_operations_of_a_kernel_worker", "[ring]") {
  const auto made = Ring::create_for_tool();
  REQUIRE(made.has_value());
  auto& ring = **made;
  Pipe pipe;
  char byte = 0;
  std::int32_t result = 0;
  spawn(read_one(ring, pipe.ends[0], ~0ULL, &byte, 1), [&](std::int32_t value) { result = value; });
  std::thread writer([&] {
    ::usleep(20'000);
    REQUIRE(::write(pipe.ends[1], "y", 1) == 1);
  });
  while (result == 0) {
    ring.run_once(true);
  }
  writer.join();
  CHECK(result == 1);
  CHECK(byte == 'y');
}

TEST_CASE("ring_of_a_tool_keeps_kernel_workers_off_its_own_processor", "[ring][uring]") {
  cpu_set_t before{};
  REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
  if (CPU_COUNT(&before) < 2) {
    WARN("only one processor: there is no other for the workers");
    return;
  }
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(1, 7));
  const int fd = ::open(directory.file("f").c_str(), O_RDWR);
  const auto made = Ring::create_for_tool();
  REQUIRE(made.has_value());
  REQUIRE(sync_wait(**made, sync_file(**made, fd)) == 0);  // the kernel has a worker do that
  unsigned workers = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream comm(task.path() / "comm");
    std::string name;
    std::getline(comm, name);
    if (name.starts_with("iou-wrk")) {
      cpu_set_t allowed{};
      REQUIRE(::sched_getaffinity(std::stoi(task.path().filename()), sizeof allowed, &allowed) == 0);
      CHECK(CPU_COUNT(&allowed) == CPU_COUNT(&before) - 1);
      ++workers;
    }
  }
  CHECK(workers != 0);
  ::close(fd);
}

TEST_CASE("ring_fdatasync_and_run_once_without_work_return", "[ring]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(1, 7));
  const int fd = ::open(directory.file("f").c_str(), O_RDWR);
  const auto ring = make_ring();
  ring->run_once(false);
  ring->run_once(true);
  REQUIRE(sync_wait(*ring, sync_file(*ring, fd)) == 0);
  ::close(fd);
}

TEST_CASE("ring_unavailable_names_the_switch_and_the_remedy", "[ring]") {
  const auto error = Ring::unavailable(EPERM);
  CHECK(error.code == ErrorCode::kUnsupported);
  CHECK(error.message.find("/proc/sys/kernel/io_uring_disabled") != std::string::npos);
  CHECK(Ring::unavailable(ENOSYS).message.find("Linux 5.6") != std::string::npos);
  CHECK(Ring::unavailable(ENOMEM).message.find("ulimit -l") != std::string::npos);
}

TEST_CASE("ring_of_a_tool_watches_only_as_long_as_that_pays", "[ring]") {
  const auto ring = Ring::create_for_tool();
  REQUIRE(ring.has_value());
  Pipe pipe;
  const auto read_after = [&](std::chrono::microseconds delay) {
    char byte = 0;
    bool ended = false;
    spawn(read_one(**ring, pipe.ends[0], ~0ULL, &byte, 1), [&](std::int32_t result) { ended = result == 1; });
    std::thread writer([&] {
      std::this_thread::sleep_for(delay);
      static_cast<void>(::write(pipe.ends[1], "z", 1) == 1);
    });
    (*ring)->run_once(true);
    writer.join();
    CHECK(ended);
    CHECK(byte == 'z');
    CHECK((*ring)->in_flight() == 0);
  };
  // Completions before, during and after the time it may stay awake.
  for (int i = 0; i < 300; ++i) {
    read_after(std::chrono::microseconds(i));
  }
  timespec begin{};
  timespec end{};
  REQUIRE(::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin) == 0);
  for (int i = 0; i < 20; ++i) {
    read_after(std::chrono::milliseconds(20));
  }
  REQUIRE(::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end) == 0);
  const auto spent = (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000;
  CHECK(spent < 200);  // milliseconds, of 400 that passed
}
