// A small RFB client for the tests of this folder: Raw pixels on a blocking socket, 10 s patience.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace whistler {

class RfbTestClient {
 public:
  using Bytes = std::vector<std::uint8_t>;
  struct Rectangle {
    unsigned x, y, width, height;
    std::int32_t encoding;
    Bytes data;
  };

  explicit RfbTestClient(unsigned port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connect_to(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  explicit RfbTestClient(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    connect_to(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  RfbTestClient(RfbTestClient&& other) noexcept
      : width(other.width), height(other.height), name(other.name), fd_(std::exchange(other.fd_, -1)) {}
  RfbTestClient& operator=(RfbTestClient&&) = delete;
  ~RfbTestClient() { close(); }

  void close() {
    if (fd_ >= 0) {
      ::close(std::exchange(fd_, -1));
    }
  }
  void send(const Bytes& bytes) {
    if (::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) {
      throw std::runtime_error("send failed");
    }
  }
  /// Sends what it can to a server that may hang up in between.
  void try_send(const Bytes& bytes) { (void)::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  Bytes receive(std::size_t size) {
    Bytes bytes(size);
    for (std::size_t got = 0; got < size;) {
      const ssize_t n = ::recv(fd_, bytes.data() + got, size - got, 0);
      if (n <= 0) {
        throw std::runtime_error("the server hung up or kept silent");
      }
      got += static_cast<std::size_t>(n);
    }
    return bytes;
  }
  unsigned receive16() {
    const Bytes bytes = receive(2);
    return bytes[0] * 256U + bytes[1];
  }
  std::uint32_t receive32() {
    const auto high = receive16();
    return high << 16 | receive16();
  }
  /// True if the server hangs up; what it still sends is thrown away.
  bool hung_up() {
    std::array<std::uint8_t, 4096> rest{};
    ssize_t n = 0;
    while ((n = ::recv(fd_, rest.data(), rest.size(), 0)) > 0) {
    }
    return n == 0 || errno == ECONNRESET;
  }

  /// The greeting; returns the security types offered.
  Bytes greet() {
    receive(12);
    send(text("RFB 003.008\n"));
    return receive(receive(1)[0]);
  }
  void initialise(bool shared = true) {
    send({static_cast<std::uint8_t>(shared ? 1 : 0)});
    width = receive16();
    height = receive16();
    receive(16);
    const Bytes bytes = receive(receive32());
    name.assign(bytes.begin(), bytes.end());
  }
  /// All of the above without a password.
  void login(bool shared = true) {
    greet();
    send({1});
    if (receive32() != 0) {
      throw std::runtime_error("refused");
    }
    initialise(shared);
  }
  void set_encodings(const std::vector<std::int32_t>& encodings) {
    Bytes message = {2, 0, 0, static_cast<std::uint8_t>(encodings.size())};
    for (const std::int32_t encoding : encodings) {
      append32(message, static_cast<std::uint32_t>(encoding));
    }
    send(message);
  }
  void request(bool incremental, unsigned w, unsigned h) {
    Bytes message = {3, static_cast<std::uint8_t>(incremental ? 1 : 0), 0, 0, 0, 0};
    append16(message, w);
    append16(message, h);
    send(message);
  }
  void request(bool incremental) { request(incremental, width, height); }
  void key(std::uint32_t keysym, bool down) {
    Bytes message = {4, static_cast<std::uint8_t>(down ? 1 : 0), 0, 0};
    append32(message, keysym);
    send(message);
  }
  void extended_key(std::uint32_t keysym, std::uint32_t number, bool down) {
    Bytes message = {255, 0, 0, static_cast<std::uint8_t>(down ? 1 : 0)};
    append32(message, keysym);
    append32(message, number);
    send(message);
  }
  void pointer(unsigned x, unsigned y, unsigned mask) {
    Bytes message = {5, static_cast<std::uint8_t>(mask)};
    append16(message, x);
    append16(message, y);
    send(message);
  }
  /// The next FramebufferUpdate.
  std::vector<Rectangle> update() {
    if (receive(2)[0] != 0) {  // the second byte is padding
      throw std::runtime_error("not a framebuffer update");
    }
    std::vector<Rectangle> rectangles(receive16());
    for (Rectangle& r : rectangles) {
      r.x = receive16();
      r.y = receive16();
      r.width = receive16();
      r.height = receive16();
      r.encoding = static_cast<std::int32_t>(receive32());
      if (r.encoding == 0) {
        r.data = receive(std::size_t{4} * r.width * r.height);
      } else if (r.encoding == -223) {
        width = r.width;
        height = r.height;
      } else if (r.encoding == -261) {
        r.data = receive(1);
      }
    }
    return rectangles;
  }
  /// Takes updates until one has a rectangle of this encoding.
  Rectangle next(std::int32_t encoding) {
    for (;;) {
      for (Rectangle& each : update()) {
        if (each.encoding == encoding) {
          return std::move(each);
        }
      }
    }
  }
  static std::uint32_t pixel(const Rectangle& r, unsigned x, unsigned y) {
    std::uint32_t value = 0;
    std::memcpy(&value, &r.data[4 * (std::size_t{y} * r.width + x)], 4);
    return value;
  }
  static Bytes text(const std::string& text) { return {text.begin(), text.end()}; }
  static void append16(Bytes& out, unsigned value) {
    out.push_back(static_cast<std::uint8_t>(value >> 8));
    out.push_back(static_cast<std::uint8_t>(value));
  }
  static void append32(Bytes& out, std::uint32_t value) {
    append16(out, value >> 16);
    append16(out, value & 0xFFFF);
  }

  unsigned width = 0;
  unsigned height = 0;
  std::string name;

 private:
  void connect_to(const sockaddr* address, socklen_t size) const {
    const timeval patience{10, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (::connect(fd_, address, size) != 0) {
      throw std::runtime_error("cannot connect");
    }
  }

  int fd_;
};

}  // namespace whistler
