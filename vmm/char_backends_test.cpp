#include "vmm/char_backends.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "vmm/test_folder.hpp"
#include "vmm/unix_socket.hpp"

using namespace whistler;

namespace {

/// The guest's side: takes as much as it is told to.
struct Guest final : CharReceiver {
  std::size_t space = 16;
  std::string got;
  std::function<void()> has_room;
  std::size_t room() const override { return space; }
  void receive(std::span<const std::uint8_t> bytes) override {
    REQUIRE(bytes.size() <= space);
    got.append(bytes.begin(), bytes.end());
    space -= bytes.size();
  }
  void on_room(std::function<void()> hook) override { has_room = std::move(hook); }
  void read_all() {
    space = 16;
    has_room();
  }
};

struct Fixture {
  std::mutex lock;
  HostClock loop_clock;
  ManualClock clock;
  TimerQueue timers{clock};
  std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create(lock, loop_clock, timers));
  TestFolder folder;
  Guest guest;

  static void say(HostStream& stream, std::string_view text) {
    for (const char c : text) {
      stream.send(static_cast<std::uint8_t>(c));
    }
  }
  void turn(int times = 8) {
    for (int i = 0; i < times; ++i) {
      loop->run_once(0);
    }
  }
  static std::string content(const std::string& path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  static std::string read_from(int fd) {
    std::array<char, 4096> buffer{};
    const auto got = ::read(fd, buffer.data(), buffer.size());
    return {buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))};
  }
  UniqueFd client(const std::string& path) {
    UniqueFd fd = std::move(*connect_unix(path));
    REQUIRE(::fcntl(fd.get(), F_SETFL, O_NONBLOCK) == 0);
    turn();
    return fd;
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "file_stream_touches_nothing_before_open", "[char_backends]") {
  std::ofstream(folder / "log") << "old";
  const auto stream = make_file_stream(*loop, timers, folder / "log");
  REQUIRE(stream->check().has_value());
  say(*stream, "lost\n");
  REQUIRE(content(folder / "log") == "old");
  REQUIRE(stream->open().has_value());
  REQUIRE(content(folder / "log").empty());
}

TEST_CASE_METHOD(Fixture, "bytes_are_gathered_into_lines_or_for_two_milliseconds", "[char_backends]") {
  const auto stream = make_file_stream(*loop, timers, folder / "log");
  REQUIRE(stream->open().has_value());
  say(*stream, "ab");
  REQUIRE(content(folder / "log").empty());
  say(*stream, "c\n");
  REQUIRE(content(folder / "log") == "abc\n");
  say(*stream, "d");
  clock.advance(2'000'000);
  timers.run_expired();
  REQUIRE(content(folder / "log") == "abc\nd");
}

TEST_CASE_METHOD(Fixture, "what_is_gathered_is_written_at_the_end", "[char_backends]") {
  {
    const auto stream = make_file_stream(*loop, timers, folder / "log");
    REQUIRE(stream->open().has_value());
    say(*stream, "end");
  }
  REQUIRE(content(folder / "log") == "end");
}

TEST_CASE_METHOD(Fixture, "file_stream_on_a_folder_fails", "[char_backends]") {
  const auto stream = make_file_stream(*loop, timers, folder / ".");
  REQUIRE(stream->check().error().code == ErrorCode::kInvalid);
  REQUIRE_FALSE(stream->open().has_value());
}

TEST_CASE_METHOD(Fixture, "full_device_drops_bytes_and_does_not_stop", "[char_backends]") {
  const auto stream = make_file_stream(*loop, timers, "/dev/full");
  REQUIRE(stream->open().has_value());
  say(*stream, std::string(200'000, 'x'));
  turn();
}

TEST_CASE_METHOD(Fixture, "socket_carries_both_ways_and_waits_for_a_slow_guest", "[char_backends]") {
  const auto stream = make_unix_stream(*loop, timers, folder / "s");
  stream->connect(&guest);
  REQUIRE(stream->open().has_value());
  const auto fd = client(folder / "s");
  say(*stream, "hello\n");
  REQUIRE(read_from(fd.get()) == "hello\n");
  const std::string text(1000, 'q');
  REQUIRE(::write(fd.get(), text.data(), text.size()) == 1000);
  for (int i = 0; i < 100; ++i) {
    turn(2);
    guest.read_all();
  }
  REQUIRE(guest.got == text);
}

TEST_CASE_METHOD(Fixture, "input_arrives_after_its_sender_has_gone", "[char_backends]") {
  const auto stream = make_unix_stream(*loop, timers, folder / "s");
  stream->connect(&guest);
  REQUIRE(stream->open().has_value());
  {
    const auto fd = client(folder / "s");
    REQUIRE(::write(fd.get(), std::string(600, 'w').data(), 600) == 600);
  }
  for (int i = 0; i < 60; ++i) {
    turn(2);
    guest.read_all();
  }
  REQUIRE(guest.got.size() == 600);
}

TEST_CASE_METHOD(Fixture, "client_that_does_not_read_costs_a_bounded_buffer", "[char_backends]") {
  const auto stream = make_unix_stream(*loop, timers, folder / "s");
  REQUIRE(stream->open().has_value());
  const auto fd = client(folder / "s");
  say(*stream, std::string(1 << 20, 'x'));
  std::size_t total = 0;
  for (int i = 0; i < 1000; ++i) {
    total += read_from(fd.get()).size();
    turn(1);
  }
  REQUIRE(total >= 64 * 1024);
  REQUIRE(total < 1 << 20);
  say(*stream, "again\n");
  REQUIRE(read_from(fd.get()) == "again\n");
}

TEST_CASE_METHOD(Fixture, "newest_client_gets_the_line", "[char_backends]") {
  const auto stream = make_unix_stream(*loop, timers, folder / "s");
  REQUIRE(stream->open().has_value());
  const auto first = client(folder / "s");
  const auto second = client(folder / "s");
  say(*stream, "hi\n");
  REQUIRE(read_from(first.get()).empty());
  REQUIRE(read_from(second.get()) == "hi\n");
}

TEST_CASE_METHOD(Fixture, "socket_is_removed_at_the_end", "[char_backends]") {
  {
    const auto stream = make_unix_stream(*loop, timers, folder / "s");
    REQUIRE(stream->check().has_value());
    REQUIRE_FALSE(std::filesystem::exists(folder / "s"));
    REQUIRE(stream->open().has_value());
    REQUIRE(std::filesystem::exists(folder / "s"));
  }
  REQUIRE_FALSE(std::filesystem::exists(folder / "s"));
}

TEST_CASE_METHOD(Fixture, "stream_that_never_opened_removes_nothing", "[char_backends]") {
  const auto listener = listen_unix(folder / "s");
  {
    const auto stream = make_unix_stream(*loop, timers, folder / "s");
    REQUIRE(stream->open().error().code == ErrorCode::kBusy);
  }
  REQUIRE(std::filesystem::exists(folder / "s"));
}

TEST_CASE_METHOD(Fixture, "pty_is_raw_and_carries_both_ways", "[char_backends]") {
  const auto stream = make_pty_stream(*loop, timers);
  stream->connect(&guest);
  REQUIRE(stream->open().has_value());
  const UniqueFd terminal(::open(stream->address().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK));
  REQUIRE(terminal);
  say(*stream, "login:\n");
  REQUIRE(read_from(terminal.get()) == "login:\n");
  REQUIRE(::write(terminal.get(), "\x03\r", 2) == 2);
  for (int i = 0; i < 200 && guest.got.size() < 2; ++i) {
    loop->run_once(10'000'000);  // a pty's bytes are carried over by a worker of the kernel
  }
  REQUIRE(guest.got == "\x03\r");
}
