#include "vmm/monitor/key_feeder.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "base/bytes.hpp"

namespace whistler {
namespace {

constexpr Nanoseconds kMillisecond = kNanosecondsPerSecond / 1000;
constexpr Nanoseconds kLook = kMillisecond;  // how often to see whether the guest has read
/// A buffer that stays full for so long is a leftover: the BIOS is not in use any more.
constexpr Nanoseconds kStale = 5 * kNanosecondsPerSecond;

// The BIOS data area: 0x41A and 0x41C hold the offsets, the buffer lies from 0x41E to 0x43D.
constexpr std::uint64_t kHeadAddress = 0x41A;
constexpr std::uint16_t kBufferStart = 0x1E;
constexpr std::uint16_t kBufferEnd = 0x3E;
constexpr unsigned kMostKept = 4;  // of the 15 it has room for: one press may take two places

/// How many keys the buffer holds; none if the offsets cannot be a BIOS's.
unsigned kept_keys(BiosKeyBuffer buffer) {
  const auto sound = [](std::uint16_t offset) {
    return offset >= kBufferStart && offset < kBufferEnd && offset % 2 == 0;
  };
  if (!sound(buffer.head) || !sound(buffer.tail)) {
    return 0;
  }
  constexpr unsigned kLength = kBufferEnd - kBufferStart;
  return (buffer.tail + kLength - buffer.head) % kLength / 2;
}

}  // namespace

BiosKeyBuffer bios_key_buffer(const GuestMemory& memory) {
  std::array<std::uint8_t, 4> bytes{};
  if (!memory.read(kHeadAddress, bytes)) {
    return {};
  }
  return {.head = static_cast<std::uint16_t>(bytes[0] | bytes[1] << 8),
          .tail = static_cast<std::uint16_t>(bytes[2] | bytes[3] << 8)};
}

KeyFeeder::KeyFeeder(TimerQueue& timers, InputSink& keyboard, Guest guest)
    : timers_(timers), keyboard_(keyboard), guest_(std::move(guest)), timer_(timers, [this] { look(); }) {}

std::uint64_t KeyFeeder::add(std::span<const Change> changes, Nanoseconds interval) {
  const auto id = next_id_++;
  for (const auto& change : changes) {
    waiting_.push_back({change, interval, id, &change == &changes.back()});
  }
  if (changes.empty()) {
    guest_.all_read(id);
  } else if (!timer_.armed()) {
    look();
  }
  return id;
}

bool KeyFeeder::bios_is_full() {
  const auto now = timers_.clock().now();
  const auto buffer = guest_.bios_buffer();
  if (buffer != seen_) {
    seen_ = buffer;
    seen_since_ = now;
  }
  return kept_keys(buffer) >= kMostKept && now - seen_since_ < kStale;
}

void KeyFeeder::look() {
  const auto now = timers_.clock().now();
  if (guest_.ready() && now >= not_before_) {
    sent_unread_ = false;
    if (const auto id = std::exchange(finished_id_, 0); id != 0) {
      guest_.all_read(id);
    }
    if (!waiting_.empty() && !bios_is_full()) {
      const auto next = waiting_.front();
      waiting_.pop_front();
      keyboard_.key(next.change.key, next.change.down);
      sent_unread_ = true;
      finished_id_ = next.last ? next.id : 0;
      not_before_ = now + next.interval;
    }
  }
  if (sent_unread_ || !waiting_.empty()) {
    timer_.arm(std::max(now + kLook, not_before_));
  }
}

}  // namespace whistler
