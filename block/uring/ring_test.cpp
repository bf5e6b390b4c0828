#include "block/uring/ring.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <sys/epoll.h>

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

TEST_CASE("ring_read_of_cached_data_ends_inline", "[ring]") {
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
