// The far end of a serial line.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

namespace whistler {

/// Host side of a serial port: standard output, a file, a pty, a socket. Never blocks; bytes nobody takes are
/// dropped. Under the machine lock.
class CharBackend {
 public:
  virtual ~CharBackend() = default;
  /// A byte the guest sent.
  virtual void send(std::uint8_t byte) = 0;
};

/// The chip's side: takes bytes for the guest.
class CharReceiver {
 public:
  virtual ~CharReceiver() = default;
  /// How many bytes receive() can take now; the backend keeps the rest and asks again when told.
  [[nodiscard]] virtual std::size_t room() const = 0;
  virtual void receive(std::span<const std::uint8_t> bytes) = 0;
  /// `hook` is called when room() has grown from 0.
  virtual void on_room(std::function<void()> hook) = 0;
};

}  // namespace whistler
