// Types for a script, no faster than the guest reads: no key is lost, and none is repeated.
//
// A keyboard has no way to wait: what it sends while the guest is not ready is gone. So the next change of a
// key goes out only when the guest has read all of the last one from port 0x60, and, while a BIOS keeps keys
// in its own buffer of 15, only when a program has taken most of those out.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "base/timer_queue.hpp"
#include "devices/core/guest_memory.hpp"
#include "devices/core/input.hpp"

namespace whistler {

/// Where a BIOS keeps the keys that no program has asked for: the first and the one behind the last, as
/// offsets into the BIOS data area. Equal when there are none.
struct BiosKeyBuffer {
  std::uint16_t head = 0, tail = 0;
  bool operator==(const BiosKeyBuffer&) const = default;
};

/// As the BIOS data area at 0x400 has it.
[[nodiscard]] BiosKeyBuffer bios_key_buffer(const GuestMemory& memory);

/// Under the machine lock.
class KeyFeeder {
 public:
  struct Change {
    KeyNumber key = 0;
    bool down = false;
  };
  /// What it asks of the guest, and tells.
  struct Guest {
    std::function<bool()> ready;  ///< a key pressed now reaches a guest that has read all earlier ones
    std::function<BiosKeyBuffer()> bios_buffer;
    std::function<void(std::uint64_t id)> all_read;  ///< the guest has read the last change of that add()
  };

  /// Time is the guest's. `timers` and `keyboard` outlive it.
  KeyFeeder(TimerQueue& timers, InputSink& keyboard, Guest guest);

  /// Queues `changes` behind those that wait already, with at least `interval` nanoseconds between two.
  /// Returns the number that all_read() will give; it rises by one each time.
  std::uint64_t add(std::span<const Change> changes, Nanoseconds interval);
  /// How many changes the guest has not read.
  [[nodiscard]] std::size_t left() const { return waiting_.size() + (sent_unread_ ? 1 : 0); }

 private:
  struct Waiting {
    Change change;
    Nanoseconds interval;
    std::uint64_t id;
    bool last;  // of its add()
  };

  void look();
  [[nodiscard]] bool bios_is_full();

  TimerQueue& timers_;
  InputSink& keyboard_;
  Guest guest_;
  Timer timer_;
  std::deque<Waiting> waiting_;
  bool sent_unread_ = false;
  std::uint64_t finished_id_ = 0;  // to be told once what was sent last has been read; 0: none
  std::uint64_t next_id_ = 1;
  Nanoseconds not_before_ = 0;
  BiosKeyBuffer seen_;  // the BIOS's buffer when it was last looked at
  Nanoseconds seen_since_ = 0;
};

}  // namespace whistler
