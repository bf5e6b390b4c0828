// What hangs on one of the keyboard controller's two PS/2 connectors, and its queue of bytes to send.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <utility>

namespace whistler {

/// A first-in first-out of bytes, part of a device's State.
template <std::size_t capacity>
struct Ps2Queue {
  std::array<std::uint8_t, capacity> bytes{};
  std::uint16_t head = 0;
  std::uint16_t count = 0;

  [[nodiscard]] std::size_t room() const { return capacity - count; }
  [[nodiscard]] bool empty() const { return count == 0; }
  /// False, and nothing changes, if it is full.
  bool push(std::uint8_t byte) {
    if (count == capacity) {
      return false;
    }
    bytes[(head + count) % capacity] = byte;
    ++count;
    return true;
  }
  /// The oldest byte; 0 if there is none.
  std::uint8_t pop() {
    if (count == 0) {
      return 0;
    }
    const auto byte = bytes[head];
    head = static_cast<std::uint16_t>((head + 1U) % capacity);
    --count;
    return byte;
  }
  void clear() { *this = {}; }
  /// For load(): the indices are in range.
  [[nodiscard]] bool valid() const { return head < capacity && count <= capacity; }

  bool operator==(const Ps2Queue&) const = default;
  static void fields(auto& self, auto&& visit) {
    visit("bytes", self.bytes);
    visit("head", self.head);
    visit("count", self.count);
  }
};

/// A device as its host (the keyboard controller) sees it. Under the machine lock.
class Ps2Device {
 public:
  virtual ~Ps2Device() = default;

  /// A byte from the host: a command or its argument. Answers are queued before this returns.
  virtual void receive(std::uint8_t byte) = 0;
  [[nodiscard]] virtual bool has_byte() const = 0;
  /// The next byte for the host, 0 if there is none.
  [[nodiscard]] virtual std::uint8_t take_byte() = 0;

  /// `hook` is called when a byte may have become available. The host takes it with take_byte() when it
  /// likes.
  void on_byte(std::function<void()> hook) { byte_hook_ = std::move(hook); }

 protected:
  void tell_host() const {
    if (byte_hook_) {
      byte_hook_();
    }
  }

 private:
  std::function<void()> byte_hook_;
};

}  // namespace whistler
