#include "devices/input/ps2_mouse.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>

namespace whistler {

namespace {

// Commands.
constexpr std::uint8_t kScalingOne = 0xE6;
constexpr std::uint8_t kScalingTwo = 0xE7;
constexpr std::uint8_t kSetResolution = 0xE8;
constexpr std::uint8_t kStatusRequest = 0xE9;
constexpr std::uint8_t kSetStream = 0xEA;
constexpr std::uint8_t kReadData = 0xEB;
constexpr std::uint8_t kResetWrap = 0xEC;
constexpr std::uint8_t kSetWrap = 0xEE;
constexpr std::uint8_t kSetRemote = 0xF0;
constexpr std::uint8_t kReadId = 0xF2;
constexpr std::uint8_t kSetSampleRate = 0xF3;
constexpr std::uint8_t kEnable = 0xF4;
constexpr std::uint8_t kDisable = 0xF5;
constexpr std::uint8_t kSetDefaults = 0xF6;
constexpr std::uint8_t kResend = 0xFE;
constexpr std::uint8_t kReset = 0xFF;

// Answers.
constexpr std::uint8_t kAck = 0xFA;
constexpr std::uint8_t kPleaseResend = 0xFE;
constexpr std::uint8_t kSelfTestPassed = 0xAA;

constexpr std::uint8_t kIdStandard = 0;
constexpr std::uint8_t kIdWheel = 3;
constexpr std::uint8_t kIdExplorer = 4;

constexpr std::int32_t kMaxCount = 255;  // nine bits with sign in a packet
constexpr std::int32_t kMaxMotion =
    32767;  // what may wait to be sent; more is lost, and the overflow bits say so
constexpr std::int32_t kMaxWheel = 127;        // eight bits with sign
constexpr std::int32_t kMaxExplorerWheel = 7;  // four bits with sign

// Positions in the sequences of sample rates that change the id.
constexpr std::uint8_t kKnockNone = 0;
constexpr std::uint8_t kKnock200 = 1;
constexpr std::uint8_t kKnock200And100 = 2;
constexpr std::uint8_t kKnock200And200 = 3;

/// `a + b` kept within what may wait; neither can overflow.
std::int32_t accumulate(std::int32_t a, int b) {
  return std::clamp(a + std::clamp(b, -2 * kMaxMotion, 2 * kMaxMotion), -kMaxMotion, kMaxMotion);
}

/// Scaling 2:1 as the mouse does it: small steps stay fine.
std::int32_t doubled(std::int32_t counts) {
  constexpr std::array<std::int32_t, 6> kSmall = {0, 1, 1, 3, 6, 9};
  const auto size = std::abs(counts);
  const auto scaled = size < 6 ? kSmall[static_cast<std::size_t>(size)] : 2 * size;
  return counts < 0 ? -scaled : scaled;
}

}  // namespace

void Ps2Mouse::move(int dx, int dy, int wheel, unsigned buttons) {
  state_.buttons = static_cast<std::uint8_t>(buttons & 0x1F);
  if (state_.reporting || state_.remote) {
    state_.dx = accumulate(state_.dx, dx);
    state_.dy = accumulate(state_.dy, -std::clamp(dy, -kMaxMotion, kMaxMotion));
    state_.dz = accumulate(state_.dz, -std::clamp(wheel, -kMaxMotion, kMaxMotion));
  }
  fill_stream();
  tell_host();
}

bool Ps2Mouse::has_news() const {
  const unsigned known_buttons = state_.device_id == kIdExplorer ? 0x1F : 0x07;
  return state_.dx != 0 || state_.dy != 0 || (state_.dz != 0 && state_.device_id != kIdStandard) ||
         ((state_.buttons ^ state_.sent_buttons) & known_buttons) != 0;
}

/// Queues packets as long as there is something to tell. Motion alone waits for the packet before it to be
/// read, so that a slow host gets few packets; a button that changes does not wait, so that no click is lost.
void Ps2Mouse::fill_stream() {
  if (!state_.reporting || state_.remote || state_.wrap) {
    return;
  }
  while (has_news() && state_.packet.room() >= packet_size() &&
         (state_.packet.empty() || state_.buttons != state_.sent_buttons)) {
    append_packet(state_.packet);
  }
}

template <std::size_t capacity>
void Ps2Mouse::append_packet(Ps2Queue<capacity>& queue) {
  const bool doubling = state_.double_scaling && !state_.remote;
  const auto most = doubling ? kMaxCount / 2 : kMaxCount;
  const auto take = [](std::int32_t& motion, std::int32_t limit) {
    const auto part = std::clamp(motion, -limit, limit);
    motion -= part;
    return part;
  };
  const bool x_lost = std::abs(state_.dx) == kMaxMotion;
  const bool y_lost = std::abs(state_.dy) == kMaxMotion;
  auto dx = take(state_.dx, most);
  auto dy = take(state_.dy, most);
  if (doubling) {
    dx = doubled(dx);
    dy = doubled(dy);
  }
  queue.push(static_cast<std::uint8_t>(0x08 | (state_.buttons & 7) | (dx < 0 ? 0x10 : 0) |
                                       (dy < 0 ? 0x20 : 0) | (x_lost ? 0x40 : 0) | (y_lost ? 0x80 : 0)));
  queue.push(static_cast<std::uint8_t>(dx));
  queue.push(static_cast<std::uint8_t>(dy));
  if (state_.device_id == kIdWheel) {
    queue.push(static_cast<std::uint8_t>(take(state_.dz, kMaxWheel)));
  } else if (state_.device_id == kIdExplorer) {
    const auto dz = take(state_.dz, kMaxExplorerWheel);
    queue.push(static_cast<std::uint8_t>((dz & 0x0F) | (state_.buttons & (kButton4 | kButton5)) << 1));
  } else {
    state_.dz = 0;
  }
  state_.sent_buttons = state_.buttons;
}

std::uint8_t Ps2Mouse::take_byte() {
  if (!has_byte()) {
    return 0;
  }
  state_.last_byte = state_.replies.empty() ? state_.packet.pop() : state_.replies.pop();
  fill_stream();
  return state_.last_byte;
}

void Ps2Mouse::reply(std::initializer_list<std::uint8_t> bytes) {
  for (const auto byte : bytes) {
    state_.replies.push(byte);
  }
}

void Ps2Mouse::receive(std::uint8_t byte) {
  state_.replies.clear();
  state_.packet.clear();  // a command breaks off a packet; the host expects the answer next
  if (state_.wrap && byte != kReset && byte != kResetWrap) {
    reply({byte});
  } else if (state_.command != 0) {
    finish_command(byte);
  } else {
    start_command(byte);
  }
  tell_host();
}

void Ps2Mouse::start_command(std::uint8_t command) {
  switch (command) {
    case kSetResolution:
    case kSetSampleRate: state_.command = command; break;
    case kScalingOne: state_.double_scaling = false; break;
    case kScalingTwo: state_.double_scaling = true; break;
    case kStatusRequest: {
      const auto flags =
          (state_.remote ? 0x40 : 0) | (state_.reporting ? 0x20 : 0) | (state_.double_scaling ? 0x10 : 0);
      const auto buttons = (state_.buttons & 1) << 2 | (state_.buttons & 4) >> 1 | (state_.buttons & 2) >> 1;
      reply({kAck, static_cast<std::uint8_t>(flags | buttons), state_.resolution, state_.sample_rate});
      return;
    }
    case kSetStream:
      state_.remote = false;
      forget_motion();
      break;
    case kSetRemote:
      state_.remote = true;
      forget_motion();
      break;
    case kReadData:
      reply({kAck});
      append_packet(state_.replies);
      return;
    case kSetWrap: state_.wrap = true; break;
    case kResetWrap: state_.wrap = false; break;
    case kReadId: reply({kAck, state_.device_id}); return;
    case kEnable:
      state_.reporting = true;
      forget_motion();
      break;
    case kDisable:
      state_.reporting = false;
      forget_motion();
      break;
    case kSetDefaults: set_defaults(); break;
    case kResend: reply({state_.last_byte}); return;
    case kReset:
      set_defaults();
      state_.device_id = kIdStandard;
      state_.knock = kKnockNone;
      reply({kAck, kSelfTestPassed, kIdStandard});
      return;
    default: reply({kPleaseResend}); return;
  }
  reply({kAck});
}

void Ps2Mouse::finish_command(std::uint8_t argument) {
  if (state_.command == kSetResolution) {
    state_.resolution = argument & 3;
  } else {
    state_.sample_rate = argument;
    watch_sample_rate(argument);
  }
  state_.command = 0;
  reply({kAck});
}

/// Rates 200, 100, 80 in a row ask for the wheel; 200, 200, 80 for the wheel and five buttons.
void Ps2Mouse::watch_sample_rate(std::uint8_t rate) {
  const auto knock = state_.knock;
  state_.knock = kKnockNone;
  if (rate == 200) {
    state_.knock = knock == kKnock200 ? kKnock200And200 : kKnock200;
  } else if (rate == 100 && knock == kKnock200) {
    state_.knock = kKnock200And100;
  } else if (rate == 80 && knock == kKnock200And100) {
    state_.device_id = kIdWheel;
  } else if (rate == 80 && knock == kKnock200And200) {
    state_.device_id = kIdExplorer;
  }
}

void Ps2Mouse::forget_motion() {
  state_.dx = 0;
  state_.dy = 0;
  state_.dz = 0;
  state_.sent_buttons = state_.buttons;
}

void Ps2Mouse::set_defaults() {
  state_.reporting = false;
  state_.remote = false;
  state_.wrap = false;
  state_.command = 0;
  state_.double_scaling = false;
  state_.resolution = 2;
  state_.sample_rate = 100;
  forget_motion();
}

void Ps2Mouse::reset() { state_ = {}; }

Result<void> Ps2Mouse::load(const StateReader& reader) {
  State loaded;
  if (auto done = reader.get(loaded); !done) {
    return done;
  }
  const auto sane = [](std::int32_t motion) { return motion >= -kMaxMotion && motion <= kMaxMotion; };
  const bool known_id =
      loaded.device_id == kIdStandard || loaded.device_id == kIdWheel || loaded.device_id == kIdExplorer;
  if (!loaded.packet.valid() || !loaded.replies.valid() || !sane(loaded.dx) || !sane(loaded.dy) ||
      !sane(loaded.dz) || !known_id) {
    return fail(ErrorCode::kCorrupt, "ps2-mouse: the saved queue, motion or id is out of range");
  }
  state_ = loaded;
  return {};
}

}  // namespace whistler
