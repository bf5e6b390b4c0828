// A ring without io_uring: what threads do in its place. The other tests of block/ run in this way too (see
// meson.build).
#include "block/uring/thread_queue.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>

#include "block/test_support.hpp"

using namespace whistler;
using namespace whistler::test;
using namespace std::chrono_literals;

namespace {

std::unique_ptr<Ring> ring_on_threads() {
  const char* const before = std::getenv("WHISTLER_IO_URING");
  ::setenv("WHISTLER_IO_URING", "off", 1);
  auto ring = Ring::create();
  if (before == nullptr) {
    ::unsetenv("WHISTLER_IO_URING");
  }
  REQUIRE(ring.has_value());
  REQUIRE((*ring)->refused().has_value());
  return std::move(*ring);
}

Task<std::int32_t> result_of(Ring::Operation operation) {
  const auto result = co_await operation;
  co_return result;
}

struct Sockets {
  int ends[2] = {-1, -1};
  Sockets() { REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0); }
  ~Sockets() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
};

/// A unix socket that listens in a folder of its own.
struct Listener {
  TemporaryDirectory directory;
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  UniqueFd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};

  explicit Listener(int backlog) {
    const auto path = directory.file("s");
    REQUIRE(path.size() < sizeof address.sun_path);
    std::copy(path.begin(), path.end(), address.sun_path);
    REQUIRE(::bind(socket.get(), where(), sizeof address) == 0);
    REQUIRE(::listen(socket.get(), backlog) == 0);
  }
  [[nodiscard]] const sockaddr* where() const { return reinterpret_cast<const sockaddr*>(&address); }
};

void run_until(Ring& ring, const bool& done) {
  while (!done) {
    ring.run_once(true);
  }
}

}  // namespace

TEST_CASE("threads_do_many_file_operations_at_once", "[threads]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(64 * 1024, 0));
  const UniqueFd file(::open(directory.file("f").c_str(), O_RDWR | O_CLOEXEC));
  const auto ring = ring_on_threads();
  constexpr std::size_t kOperations = 1000;
  std::vector<std::uint8_t> bytes(kOperations);
  std::vector<iovec> vecs(kOperations);
  std::size_t ended = 0;
  for (std::size_t i = 0; i < kOperations; ++i) {
    bytes[i] = static_cast<std::uint8_t>(i);
    vecs[i] = {&bytes[i], 1};
    spawn(result_of(ring->writev(file.get(), i, &vecs[i], 1)), [&](std::int32_t result) {
      CHECK(result == 1);
      ++ended;
    });
  }
  CHECK(ring->in_flight() == kOperations);
  while (ended != kOperations) {
    ring->run_once(true);
  }
  CHECK(ring->in_flight() == 0);
  CHECK(sync_wait(*ring, result_of(ring->fdatasync(file.get()))) == 0);
  CHECK(sync_wait(*ring, result_of(ring->fallocate(file.get(), 0, 0, 128 * 1024))) == 0);
  std::vector<std::uint8_t> back(kOperations);
  const iovec vec{back.data(), back.size()};
  CHECK(sync_wait(*ring, result_of(ring->readv(file.get(), 0, &vec, 1))) ==
        static_cast<std::int32_t>(kOperations));
  CHECK(back == bytes);
  CHECK(sync_wait(*ring, result_of(ring->readv(-1, 0, &vec, 1))) == -EBADF);
}

TEST_CASE("threads_make_the_descriptor_readable_as_long_as_there_is_something", "[threads]") {
  const auto ring = ring_on_threads();
  Sockets pair;
  const auto readable = [&](int milliseconds) {
    pollfd polled{ring->fd(), POLLIN, 0};
    return ::poll(&polled, 1, milliseconds) == 1;
  };
  CHECK_FALSE(readable(0));
  bool done = false;
  spawn(result_of(ring->poll(pair.ends[0], POLLIN)), [&](std::int32_t events) { done = events == POLLIN; });
  CHECK_FALSE(readable(20));
  REQUIRE(::write(pair.ends[1], "x", 1) == 1);
  REQUIRE(readable(5000));
  ring->run_once(false);
  CHECK(done);
  CHECK_FALSE(readable(0));
}

TEST_CASE("threads_send_and_receive_and_wait_for_neither_at_the_cost_of_others", "[threads]") {
  const auto ring = ring_on_threads();
  Sockets pair;
  std::array<char, 8> to{};
  bool received = false;
  spawn(result_of(ring->recv(pair.ends[0], to.data(), to.size())), [&](std::int32_t result) {
    CHECK(result == 3);
    received = true;
  });
  // More than the socket holds: goes on when the other side reads.
  std::vector<char> much(8 * 1024 * 1024, 'm');
  iovec vec{much.data(), much.size()};
  msghdr message{};
  message.msg_iov = &vec;
  message.msg_iovlen = 1;
  Sockets full;
  std::int32_t first = 0;
  while ((first = static_cast<std::int32_t>(::send(full.ends[0], much.data(), much.size(), MSG_DONTWAIT))) >
         0) {
  }
  bool sent = false;
  spawn(result_of(ring->sendmsg(full.ends[0], &message, MSG_NOSIGNAL)), [&](std::int32_t result) {
    CHECK(result > 0);
    sent = true;
  });
  CHECK(sync_wait(*ring, result_of(ring->timeout(20ms))) == -ETIME);
  CHECK_FALSE((received || sent));
  REQUIRE(::write(pair.ends[1], "abc", 3) == 3);
  run_until(*ring, received);
  CHECK(std::string_view(to.data(), 3) == "abc");
  std::vector<char> drained(much.size());
  REQUIRE(::recv(full.ends[1], drained.data(), drained.size(), 0) > 0);
  run_until(*ring, sent);
}

TEST_CASE("threads_connect_and_accept_and_leave_the_socket_as_it_was", "[threads]") {
  const auto ring = ring_on_threads();
  Listener listener(0);
  const auto connect = [&](const UniqueFd& socket) {
    return result_of(ring->connect(socket.get(), listener.where(), sizeof listener.address));
  };
  UniqueFd one(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  UniqueFd two(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CHECK(sync_wait(*ring, connect(one)) == 0);
  CHECK((::fcntl(one.get(), F_GETFL) & O_NONBLOCK) == 0);
  // The listener has room for one: the second waits until the first has been accepted.
  bool connected = false;
  spawn(connect(two), [&](std::int32_t result) { connected = result == 0; });
  CHECK(sync_wait(*ring, result_of(ring->timeout(30ms))) == -ETIME);
  CHECK_FALSE(connected);
  const UniqueFd accepted(sync_wait(*ring, result_of(ring->accept(listener.socket.get()))));
  CHECK(accepted.get() >= 0);
  run_until(*ring, connected);
  CHECK((::fcntl(two.get(), F_GETFL) & O_NONBLOCK) == 0);
  listener.socket.reset();
  UniqueFd three(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CHECK(sync_wait(*ring, connect(three)) == -ECONNREFUSED);
}

TEST_CASE("threads_end_what_is_cancelled", "[threads]") {
  const auto ring = ring_on_threads();
  Sockets pair;
  char byte = 0;
  std::array<std::int32_t, 3> results{};
  std::array operations{ring->recv(pair.ends[0], &byte, 1), ring->poll(pair.ends[0], POLLIN),
                        ring->timeout(1h)};
  const auto wait = [](Ring::Operation& operation) -> Task<std::int32_t> {
    const auto result = co_await operation;
    co_return result;
  };
  for (std::size_t i = 0; i < operations.size(); ++i) {
    spawn(wait(operations[i]), [&results, i](std::int32_t result) { results[i] = result; });
  }
  for (auto& operation : operations) {
    ring->cancel(operation);
    ring->cancel(operation);
  }
  while (ring->in_flight() != 0) {
    ring->run_once(true);
  }
  CHECK(results == std::array<std::int32_t, 3>{-ECANCELED, -ECANCELED, -ECANCELED});
  for (auto& operation : operations) {
    ring->cancel(operation);  // it has ended long ago
  }
  CHECK(ring->in_flight() == 0);
}
