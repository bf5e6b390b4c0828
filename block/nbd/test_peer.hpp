// The other end of a connection, by hand: for tests that say what no honest program would.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <string>
#include <string_view>

#include "base/unique_fd.hpp"
#include "block/nbd/protocol.hpp"
#include "block/test_support.hpp"

namespace whistler::test {

class Peer {
 public:
  explicit Peer(Ring& ring) : ring_(ring) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    own_ = UniqueFd(ends[0]);
    other_ = UniqueFd(ends[1]);
  }
  /// For the code under test.
  [[nodiscard]] UniqueFd take_other() { return std::move(other_); }

  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto sent = ::send(own_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent > 0) {
        bytes.remove_prefix(static_cast<std::size_t>(sent));
      } else if (errno != EAGAIN) {
        return;  // the other side has gone: the test will see
      }
      ring_.run_once(false);
    }
  }
  void send(const nbd::Writer& message) { send(message.bytes()); }
  template <typename Message>
  void send_struct(const Message& message) {
    send(std::string_view(reinterpret_cast<const char*>(&message), sizeof message));
  }

  /// Exactly so many bytes; fewer if the stream ends or nothing comes for five seconds.
  [[nodiscard]] std::string receive(std::size_t bytes) {
    std::string got;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (got.size() < bytes && std::chrono::steady_clock::now() < deadline) {
      char buffer[4096];
      const auto count =
          ::recv(own_.get(), buffer, std::min(sizeof buffer, bytes - got.size()), MSG_DONTWAIT);
      if (count > 0) {
        got.append(buffer, static_cast<std::size_t>(count));
      } else if (count == 0 || errno != EAGAIN) {
        ended_ = true;
        break;
      } else {
        ring_.run_once(false);
        ::usleep(100);
      }
    }
    return got;
  }
  template <typename Message>
  [[nodiscard]] Message receive_struct() {
    const auto bytes = receive(sizeof(Message));
    Message message{};
    REQUIRE(bytes.size() == sizeof message);
    std::memcpy(&message, bytes.data(), sizeof message);
    return message;
  }
  /// Whether the other side closes the connection, without another byte.
  [[nodiscard]] bool ends() { return receive(1).empty() && ended_; }
  void close_sending() { ::shutdown(own_.get(), SHUT_WR); }
  void close() { own_.reset(); }

 private:
  Ring& ring_;
  UniqueFd own_;
  UniqueFd other_;
  bool ended_ = false;
};

}  // namespace whistler::test
