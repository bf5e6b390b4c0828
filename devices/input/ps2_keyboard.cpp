#include "devices/input/ps2_keyboard.hpp"

#include <vector>

#include "devices/input/scan_codes.hpp"

namespace whistler {

namespace {

// Commands.
constexpr std::uint8_t kSetLeds = 0xED;
constexpr std::uint8_t kEcho = 0xEE;
constexpr std::uint8_t kScanCodeSet = 0xF0;
constexpr std::uint8_t kReadId = 0xF2;
constexpr std::uint8_t kSetTypematic = 0xF3;
constexpr std::uint8_t kEnable = 0xF4;
constexpr std::uint8_t kDefaultDisable = 0xF5;
constexpr std::uint8_t kSetDefault = 0xF6;
constexpr std::uint8_t kAllTypematic = 0xF7;
constexpr std::uint8_t kAllMakeBreak = 0xF8;
constexpr std::uint8_t kAllMake = 0xF9;
constexpr std::uint8_t kAllTypematicMakeBreak = 0xFA;
constexpr std::uint8_t kKeyTypematic = 0xFB;
constexpr std::uint8_t kKeyMakeBreak = 0xFC;
constexpr std::uint8_t kKeyMake = 0xFD;
constexpr std::uint8_t kResend = 0xFE;
constexpr std::uint8_t kReset = 0xFF;
constexpr std::uint8_t kFirstCommand = 0xED;

// Answers.
constexpr std::uint8_t kAck = 0xFA;
constexpr std::uint8_t kPleaseResend = 0xFE;
constexpr std::uint8_t kSelfTestPassed = 0xAA;

constexpr std::uint8_t kExtended = 0xE0;
constexpr std::uint8_t kBreak = 0xF0;  // sets 2 and 3
constexpr std::uint8_t kDefaultTypematic = 0x2B;

// Keys that are not one code (numbers of devices/core/input.hpp).
constexpr KeyNumber kSysRq = 0x54;
constexpr KeyNumber kPrintScreen = 0xB7;
constexpr KeyNumber kPause = 0xC6;
constexpr KeyNumber kLeftControl = 0x1D;
constexpr KeyNumber kRightControl = 0x9D;
constexpr KeyNumber kLeftShift = 0x2A;
constexpr KeyNumber kRightShift = 0x36;
constexpr KeyNumber kLeftAlt = 0x38;
constexpr KeyNumber kRightAlt = 0xB8;

using Bytes = std::vector<std::uint8_t>;

/// The strokes of one change of one key, in the form of set 1 or 2.
class StrokeWriter {
 public:
  explicit StrokeWriter(std::uint8_t set) : set_(set) {}

  /// `code` is the set 1 code.
  void plain(std::uint8_t code, bool down) {
    if (set_ == 1) {
      bytes_.push_back(down ? code : static_cast<std::uint8_t>(code | 0x80));
      return;
    }
    if (!down) {
      bytes_.push_back(kBreak);
    }
    bytes_.push_back(set1_to_set2(code));
  }
  void extended(std::uint8_t code, bool down) {
    bytes_.push_back(kExtended);
    plain(code, down);
  }
  /// The whole of Pause, which has no break.
  void pause() {
    for (const bool down : {true, false}) {
      bytes_.push_back(0xE1);
      plain(0x1D, down);
      plain(0x45, down);
    }
  }
  [[nodiscard]] const Bytes& bytes() const { return bytes_; }

 private:
  std::uint8_t set_;
  Bytes bytes_;
};

struct Modifiers {
  bool control;
  bool shift;
};

Bytes strokes(std::uint8_t set, KeyNumber key, bool down, Modifiers held) {
  StrokeWriter writer(set);
  if (key == kPause) {
    if (down && held.control) {
      writer.extended(0x46, true);  // Break
      writer.extended(0x46, false);
    } else if (down) {
      writer.pause();
    }
  } else if (key == kPrintScreen) {
    const bool fake_shift = !held.control && !held.shift;
    if (fake_shift && down) {
      writer.extended(0x2A, true);
    }
    writer.extended(0x37, down);
    if (fake_shift && !down) {
      writer.extended(0x2A, false);
    }
  } else if ((key & 0x80) != 0) {
    writer.extended(key & 0x7F, down);
  } else {
    writer.plain(key, down);
  }
  return writer.bytes();
}

Bytes set3_strokes(KeyNumber key, bool down, bool makes_only) {
  const auto code = set3_code(key);
  if (!code || (!down && makes_only)) {
    return {};
  }
  return down ? Bytes{*code} : Bytes{kBreak, *code};
}

}  // namespace

std::optional<std::uint8_t> set3_code(std::uint8_t key) {
  switch (key) {
    case 0x01: return 0x08;  // Esc
    case 0x3B: return 0x07;  // F1-F12
    case 0x3C: return 0x0F;
    case 0x3D: return 0x17;
    case 0x3E: return 0x1F;
    case 0x3F: return 0x27;
    case 0x40: return 0x2F;
    case 0x41: return 0x37;
    case 0x42: return 0x3F;
    case 0x43: return 0x47;
    case 0x44: return 0x4F;
    case 0x57: return 0x56;
    case 0x58: return 0x5E;
    case kLeftControl: return 0x11;
    case kLeftAlt: return 0x19;
    case 0x3A: return 0x14;  // Caps Lock
    case 0x2B: return 0x5C;  // backslash
    case 0x56: return 0x13;  // the key beside the left shift
    case 0x45: return 0x76;  // Num Lock
    case 0x46: return 0x5F;  // Scroll Lock
    case 0x37: return 0x7E;  // keypad * - + / Enter
    case 0x4A: return 0x84;
    case 0x4E: return 0x7C;
    case 0xB5: return 0x77;
    case 0x9C: return 0x79;
    case kSysRq:
    case kPrintScreen: return 0x57;
    case kPause: return 0x62;
    case 0xD2: return 0x67;  // Insert
    case 0xC7: return 0x6E;  // Home
    case 0xC9: return 0x6F;  // Page Up
    case 0xD3: return 0x64;  // Delete
    case 0xCF: return 0x65;  // End
    case 0xD1: return 0x6D;  // Page Down
    case 0xC8: return 0x63;  // the arrows: up, left, down, right
    case 0xCB: return 0x61;
    case 0xD0: return 0x60;
    case 0xCD: return 0x6A;
    case kRightAlt: return 0x39;
    case kRightControl: return 0x58;
    case 0xDB: return 0x8B;  // the Windows keys and Menu
    case 0xDC: return 0x8C;
    case 0xDD: return 0x8D;
    default: break;
  }
  if (key == 0 || key > 0x58) {
    return std::nullopt;
  }
  return set1_to_set2(key);  // letters, digits and the rest of the keypad are as in set 2
}

void Ps2Keyboard::set_held(KeyNumber key, bool down) {
  const auto bit = static_cast<std::uint8_t>(1U << (key % 8));
  auto& byte = state_.held[key / 8];
  byte = static_cast<std::uint8_t>(down ? byte | bit : byte & ~bit);
}

void Ps2Keyboard::key(KeyNumber key, bool down) {
  // PrintScreen with Alt is SysRq, and stays it until it goes up.
  if (key == kPrintScreen && (down ? is_held(kLeftAlt) || is_held(kRightAlt) : is_held(kSysRq))) {
    key = kSysRq;
  }
  if ((key & 0x7F) == 0 || (!down && !is_held(key))) {
    return;
  }
  set_held(key, down);
  if (!state_.scanning) {
    return;
  }
  const Modifiers held = {.control = is_held(kLeftControl) || is_held(kRightControl),
                          .shift = is_held(kLeftShift) || is_held(kRightShift)};
  queue_stroke(state_.scan_set == 3 ? set3_strokes(key, down, state_.makes_only)
                                    : strokes(state_.scan_set, key, down, held));
  tell_host();
}

/// All of `bytes` or, if they do not fit, the overrun code once: half a sequence would be another key.
void Ps2Keyboard::queue_stroke(std::span<const std::uint8_t> bytes) {
  if (state_.overrun) {
    return;
  }
  if (state_.strokes.room() <= bytes.size()) {  // one place is kept for the overrun code
    state_.strokes.push(state_.scan_set == 1 ? 0xFF : 0x00);
    state_.overrun = true;
    return;
  }
  for (const auto byte : bytes) {
    state_.strokes.push(byte);
  }
}

std::uint8_t Ps2Keyboard::take_byte() {
  if (!has_byte()) {
    return 0;
  }
  state_.last_byte = state_.replies.empty() ? state_.strokes.pop() : state_.replies.pop();
  if (state_.strokes.empty()) {
    state_.overrun = false;
  }
  return state_.last_byte;
}

void Ps2Keyboard::reply(std::initializer_list<std::uint8_t> bytes) {
  for (const auto byte : bytes) {
    state_.replies.push(byte);
  }
}

void Ps2Keyboard::receive(std::uint8_t byte) {
  state_.replies.clear();  // a command breaks off the answer to the one before
  const bool argument = state_.command != 0 && (byte < kFirstCommand || state_.command >= kKeyTypematic);
  if (argument) {
    finish_command(byte);
  } else {
    state_.command = 0;
    start_command(byte);
  }
  tell_host();
}

void Ps2Keyboard::start_command(std::uint8_t command) {
  switch (command) {
    case kSetLeds:
    case kScanCodeSet:
    case kSetTypematic:
    case kKeyTypematic:
    case kKeyMakeBreak:
    case kKeyMake:
      state_.command = command;
      reply({kAck});
      break;
    case kEcho: reply({kEcho}); break;
    case kReadId: reply({kAck, 0xAB, 0x83}); break;
    case kEnable:
      state_.strokes.clear();
      state_.overrun = false;
      state_.scanning = true;
      reply({kAck});
      break;
    case kDefaultDisable:
      set_defaults();
      state_.scanning = false;
      reply({kAck});
      break;
    case kSetDefault:
      set_defaults();
      reply({kAck});
      break;
    case kAllTypematic:
    case kAllMake:
      state_.makes_only = true;
      reply({kAck});
      break;
    case kAllMakeBreak:
    case kAllTypematicMakeBreak:
      state_.makes_only = false;
      reply({kAck});
      break;
    case kResend: reply({state_.last_byte}); break;
    case kReset:
      set_defaults();
      state_.leds = 0;
      state_.scanning = true;
      reply({kAck, kSelfTestPassed});
      break;
    default: reply({kPleaseResend}); break;
  }
}

void Ps2Keyboard::finish_command(std::uint8_t argument) {
  const auto command = state_.command;
  state_.command = 0;
  switch (command) {
    case kSetLeds: state_.leds = argument & 7; break;
    case kSetTypematic: state_.typematic = argument & 0x7F; break;
    case kScanCodeSet:
      if (argument == 0) {
        reply({kAck, state_.scan_set});
        return;
      }
      if (argument > 3) {
        reply({kPleaseResend});
        return;
      }
      state_.scan_set = argument;
      state_.strokes.clear();
      state_.overrun = false;
      break;
    default: break;  // FB-FD: the key's options are not kept apart
  }
  reply({kAck});
}

void Ps2Keyboard::set_defaults() {
  state_.strokes.clear();
  state_.overrun = false;
  state_.scan_set = 2;
  state_.makes_only = false;
  state_.typematic = kDefaultTypematic;
}

void Ps2Keyboard::reset() { state_ = {}; }

Result<void> Ps2Keyboard::load(const StateReader& reader) {
  State loaded;
  if (auto done = reader.get(loaded); !done) {
    return done;
  }
  if (!loaded.strokes.valid() || !loaded.replies.valid() || loaded.scan_set < 1 || loaded.scan_set > 3) {
    return fail(ErrorCode::kCorrupt, "ps2-keyboard: the saved queue or scan code set is out of range");
  }
  loaded.leds &= 7;
  state_ = loaded;
  return {};
}

}  // namespace whistler
