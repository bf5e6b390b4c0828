#include "base/service.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/log.hpp"

using namespace whistler;

namespace {

/// A manager's socket with an abstract name; gives what came, or "".
class Manager {
 public:
  Manager() : name_(fmt::format("whistler-test-{}", ::getpid())) {
    socket_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name_.data(), name_.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name_.size());
    REQUIRE(::bind(socket_, reinterpret_cast<const sockaddr*>(&address), length) == 0);
  }
  ~Manager() { ::close(socket_); }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;
  [[nodiscard]] std::string name() const { return "@" + name_; }
  [[nodiscard]] std::string received() const {
    std::array<char, 256> text{};
    const auto bytes = ::recv(socket_, text.data(), text.size(), 0);
    return bytes < 0 ? std::string() : std::string(text.data(), static_cast<std::size_t>(bytes));
  }

 private:
  std::string name_;
  int socket_ = -1;
};

}  // namespace

TEST_CASE("service_manager_gets_the_lines_where_it_listens") {
  const Manager manager;
  ::setenv("NOTIFY_SOCKET", manager.name().c_str(), 1);
  notify_service("READY=1\nSTATUS=running\n");
  CHECK(manager.received() == "READY=1\nSTATUS=running\n");
  for (const char* wrong : {"", "@", "relative", "/nowhere/at/all"}) {
    ::setenv("NOTIFY_SOCKET", wrong, 1);
    notify_service("READY=1");
    CHECK(manager.received() == "");
  }
  ::unsetenv("NOTIFY_SOCKET");
  notify_service("READY=1");
  CHECK(manager.received() == "");
}

TEST_CASE("messages_for_the_journal_begin_with_their_level") {
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  struct stat status{};
  REQUIRE(::fstat(ends[1], &status) == 0);
  ::setenv("JOURNAL_STREAM", fmt::format("{}:{}", status.st_dev, status.st_ino).c_str(), 1);
  CHECK(leads_to_journal(ends[1]));
  CHECK_FALSE(leads_to_journal(STDIN_FILENO));
  ::unsetenv("JOURNAL_STREAM");
  CHECK_FALSE(leads_to_journal(ends[1]));
  ::close(ends[0]);
  ::close(ends[1]);
  CHECK(log_line(LogLevel::kError, "x", false) == "whistler: error: x\n");
  CHECK(log_line(LogLevel::kError, "x", true) == "<3>whistler: error: x\n");
  CHECK(log_line(LogLevel::kDebug, "x", true) == "<7>whistler: debug: x\n");
}
