#include "devices/vnc/keysym.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/log.hpp"

namespace whistler {
namespace {

constexpr KeyNumber kLeftShift = 0x2A;
constexpr KeyNumber kRightShift = 0x36;
constexpr KeyNumber kLeftCtrl = 0x1D;
constexpr KeyNumber kRightCtrl = 0x9D;
constexpr KeyNumber kLeftAlt = 0x38;
constexpr KeyNumber kRightAlt = 0xB8;
constexpr KeyNumber kLeftWindows = 0xDB;
constexpr KeyNumber kRightWindows = 0xDC;
constexpr KeyNumber kCapsLock = 0x3A;
constexpr KeyNumber kNumLock = 0x45;
constexpr KeyNumber kSysRq = 0x54;
constexpr KeyNumber kPrintScreen = 0xB7;

constexpr std::uint8_t kLedNum = 2;
constexpr std::uint8_t kLedCaps = 4;

constexpr std::uint32_t kIsoLevel3Shift = 0xFE03;
constexpr std::uint32_t kModeSwitch = 0xFF7E;
constexpr std::uint32_t kUnicode = 0x01000000;  // keysyms from here on are Unicode code points

/// A row of character keys with consecutive numbers, without and with Shift.
struct CharacterRow {
  KeyNumber first;
  std::string_view plain;
  std::string_view shifted;
};

constexpr std::array kCharacterRows = {
    CharacterRow{0x02, "1234567890-=", "!@#$%^&*()_+"},
    CharacterRow{0x10, "qwertyuiop[]", "QWERTYUIOP{}"},
    CharacterRow{0x1E, "asdfghjkl;'`", "ASDFGHJKL:\"~"},
    CharacterRow{0x2B, "\\zxcvbnm,./", "|ZXCVBNM<>?"},
};

struct NamedKey {
  std::uint32_t keysym;
  KeyForKeysym key;
};

constexpr auto kAny = KeyNeeds::kNothing;

constexpr std::array kNamedKeys = {
    NamedKey{0x0020, {0x39, kAny}},                 // space
    NamedKey{0xFE20, {0x0F, KeyNeeds::kShift}},     // ISO_Left_Tab: Shift+Tab
    NamedKey{0xFE50, {0x29, KeyNeeds::kNoShift}},   // dead_grave
    NamedKey{0xFE51, {0x28, KeyNeeds::kNoShift}},   // dead_acute
    NamedKey{0xFE52, {0x07, KeyNeeds::kShift}},     // dead_circumflex
    NamedKey{0xFE53, {0x29, KeyNeeds::kShift}},     // dead_tilde
    NamedKey{0xFE57, {0x28, KeyNeeds::kShift}},     // dead_diaeresis
    NamedKey{0xFF08, {0x0E, kAny}},                 // BackSpace
    NamedKey{0xFF09, {0x0F, kAny}},                 // Tab
    NamedKey{0xFF0A, {0x1C, kAny}},                 // Linefeed
    NamedKey{0xFF0D, {0x1C, kAny}},                 // Return
    NamedKey{0xFF13, {0xC6, kAny}},                 // Pause
    NamedKey{0xFF14, {0x46, kAny}},                 // Scroll_Lock
    NamedKey{0xFF15, {kSysRq, kAny}},               // Sys_Req
    NamedKey{0xFF1B, {0x01, kAny}},                 // Escape
    NamedKey{0xFF50, {0xC7, kAny}},                 // Home
    NamedKey{0xFF51, {0xCB, kAny}},                 // Left
    NamedKey{0xFF52, {0xC8, kAny}},                 // Up
    NamedKey{0xFF53, {0xCD, kAny}},                 // Right
    NamedKey{0xFF54, {0xD0, kAny}},                 // Down
    NamedKey{0xFF55, {0xC9, kAny}},                 // Page_Up
    NamedKey{0xFF56, {0xD1, kAny}},                 // Page_Down
    NamedKey{0xFF57, {0xCF, kAny}},                 // End
    NamedKey{0xFF61, {kPrintScreen, kAny}},         // Print
    NamedKey{0xFF63, {0xD2, kAny}},                 // Insert
    NamedKey{0xFF67, {0xDD, kAny}},                 // Menu
    NamedKey{0xFF6B, {0xC6, kAny}},                 // Break
    NamedKey{0xFF7F, {kNumLock, kAny}},             // Num_Lock
    NamedKey{0xFF80, {0x39, kAny}},                 // KP_Space
    NamedKey{0xFF89, {0x0F, kAny}},                 // KP_Tab
    NamedKey{0xFF8D, {0x9C, kAny}},                 // KP_Enter
    NamedKey{0xFF91, {0x3B, kAny}},                 // KP_F1
    NamedKey{0xFF92, {0x3C, kAny}},                 // KP_F2
    NamedKey{0xFF93, {0x3D, kAny}},                 // KP_F3
    NamedKey{0xFF94, {0x3E, kAny}},                 // KP_F4
    NamedKey{0xFF95, {0x47, KeyNeeds::kNavigate}},  // KP_Home
    NamedKey{0xFF96, {0x4B, KeyNeeds::kNavigate}},  // KP_Left
    NamedKey{0xFF97, {0x48, KeyNeeds::kNavigate}},  // KP_Up
    NamedKey{0xFF98, {0x4D, KeyNeeds::kNavigate}},  // KP_Right
    NamedKey{0xFF99, {0x50, KeyNeeds::kNavigate}},  // KP_Down
    NamedKey{0xFF9A, {0x49, KeyNeeds::kNavigate}},  // KP_Page_Up
    NamedKey{0xFF9B, {0x51, KeyNeeds::kNavigate}},  // KP_Page_Down
    NamedKey{0xFF9C, {0x4F, KeyNeeds::kNavigate}},  // KP_End
    NamedKey{0xFF9D, {0x4C, kAny}},                 // KP_Begin
    NamedKey{0xFF9E, {0x52, KeyNeeds::kNavigate}},  // KP_Insert
    NamedKey{0xFF9F, {0x53, KeyNeeds::kNavigate}},  // KP_Delete
    NamedKey{0xFFAA, {0x37, kAny}},                 // KP_Multiply
    NamedKey{0xFFAB, {0x4E, kAny}},                 // KP_Add
    NamedKey{0xFFAC, {0x53, KeyNeeds::kNumLock}},   // KP_Separator
    NamedKey{0xFFAD, {0x4A, kAny}},                 // KP_Subtract
    NamedKey{0xFFAE, {0x53, KeyNeeds::kNumLock}},   // KP_Decimal
    NamedKey{0xFFAF, {0xB5, kAny}},                 // KP_Divide
    NamedKey{0xFFB0, {0x52, KeyNeeds::kNumLock}},   // KP_0
    NamedKey{0xFFB1, {0x4F, KeyNeeds::kNumLock}},   // KP_1
    NamedKey{0xFFB2, {0x50, KeyNeeds::kNumLock}},   // KP_2
    NamedKey{0xFFB3, {0x51, KeyNeeds::kNumLock}},   // KP_3
    NamedKey{0xFFB4, {0x4B, KeyNeeds::kNumLock}},   // KP_4
    NamedKey{0xFFB5, {0x4C, KeyNeeds::kNumLock}},   // KP_5
    NamedKey{0xFFB6, {0x4D, KeyNeeds::kNumLock}},   // KP_6
    NamedKey{0xFFB7, {0x47, KeyNeeds::kNumLock}},   // KP_7
    NamedKey{0xFFB8, {0x48, KeyNeeds::kNumLock}},   // KP_8
    NamedKey{0xFFB9, {0x49, KeyNeeds::kNumLock}},   // KP_9
    NamedKey{0xFFBD, {0x59, kAny}},                 // KP_Equal
    NamedKey{0xFFBE, {0x3B, kAny}},                 // F1
    NamedKey{0xFFBF, {0x3C, kAny}},                 // F2
    NamedKey{0xFFC0, {0x3D, kAny}},                 // F3
    NamedKey{0xFFC1, {0x3E, kAny}},                 // F4
    NamedKey{0xFFC2, {0x3F, kAny}},                 // F5
    NamedKey{0xFFC3, {0x40, kAny}},                 // F6
    NamedKey{0xFFC4, {0x41, kAny}},                 // F7
    NamedKey{0xFFC5, {0x42, kAny}},                 // F8
    NamedKey{0xFFC6, {0x43, kAny}},                 // F9
    NamedKey{0xFFC7, {0x44, kAny}},                 // F10
    NamedKey{0xFFC8, {0x57, kAny}},                 // F11
    NamedKey{0xFFC9, {0x58, kAny}},                 // F12
    NamedKey{0xFFCA, {0x64, kAny}},                 // F13
    NamedKey{0xFFCB, {0x65, kAny}},                 // F14
    NamedKey{0xFFCC, {0x66, kAny}},                 // F15
    NamedKey{0xFFCD, {0x67, kAny}},                 // F16
    NamedKey{0xFFCE, {0x68, kAny}},                 // F17
    NamedKey{0xFFCF, {0x69, kAny}},                 // F18
    NamedKey{0xFFD0, {0x6A, kAny}},                 // F19
    NamedKey{0xFFD1, {0x6B, kAny}},                 // F20
    NamedKey{0xFFD2, {0x6C, kAny}},                 // F21
    NamedKey{0xFFD3, {0x6D, kAny}},                 // F22
    NamedKey{0xFFD4, {0x6E, kAny}},                 // F23
    NamedKey{0xFFD5, {0x76, kAny}},                 // F24
    NamedKey{0xFFE1, {kLeftShift, kAny}},           // Shift_L
    NamedKey{0xFFE2, {kRightShift, kAny}},          // Shift_R
    NamedKey{0xFFE3, {kLeftCtrl, kAny}},            // Control_L
    NamedKey{0xFFE4, {kRightCtrl, kAny}},           // Control_R
    NamedKey{0xFFE5, {kCapsLock, kAny}},            // Caps_Lock
    NamedKey{0xFFE6, {kCapsLock, kAny}},            // Shift_Lock
    NamedKey{0xFFE7, {kLeftWindows, kAny}},         // Meta_L
    NamedKey{0xFFE8, {kRightWindows, kAny}},        // Meta_R
    NamedKey{0xFFE9, {kLeftAlt, kAny}},             // Alt_L
    NamedKey{0xFFEA, {kRightAlt, kAny}},            // Alt_R
    NamedKey{0xFFEB, {kLeftWindows, kAny}},         // Super_L
    NamedKey{0xFFEC, {kRightWindows, kAny}},        // Super_R
    NamedKey{0xFFFF, {0xD3, kAny}},                 // Delete
};

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::optional<KeyForKeysym> key_for_character(char character) {
  for (const CharacterRow& row : kCharacterRows) {
    if (const auto at = row.plain.find(character); at != std::string_view::npos) {
      return KeyForKeysym{static_cast<KeyNumber>(row.first + at),
                          is_letter(character) ? KeyNeeds::kLower : KeyNeeds::kNoShift};
    }
    if (const auto at = row.shifted.find(character); at != std::string_view::npos) {
      return KeyForKeysym{static_cast<KeyNumber>(row.first + at),
                          is_letter(character) ? KeyNeeds::kUpper : KeyNeeds::kShift};
    }
  }
  return std::nullopt;
}

/// The key outside the keypad that gives the character of a keypad key.
KeyNumber main_key_for_keypad(KeyNumber key) {
  switch (key) {
    case 0x47: return 0x08;  // 7
    case 0x48: return 0x09;  // 8
    case 0x49: return 0x0A;  // 9
    case 0x4B: return 0x05;  // 4
    case 0x4C: return 0x06;  // 5
    case 0x4D: return 0x07;  // 6
    case 0x4F: return 0x02;  // 1
    case 0x50: return 0x03;  // 2
    case 0x51: return 0x04;  // 3
    case 0x52: return 0x0B;  // 0
    default: return 0x34;    // the point
  }
}

bool is_modifier(KeyNumber key) {
  return key == kLeftShift || key == kRightShift || key == kLeftCtrl || key == kRightCtrl ||
         key == kLeftAlt || key == kRightAlt || key == kLeftWindows || key == kRightWindows ||
         key == kCapsLock || key == kNumLock;
}

}  // namespace

std::optional<KeyForKeysym> key_for_keysym(std::uint32_t keysym) {
  if (keysym >= kUnicode && keysym < kUnicode + 0x100) {
    keysym -= kUnicode;
  }
  if (keysym > 0x20 && keysym < 0x7F) {
    return key_for_character(static_cast<char>(keysym));
  }
  const auto found = std::ranges::find(kNamedKeys, keysym, &NamedKey::keysym);
  if (found == kNamedKeys.end()) {
    return std::nullopt;
  }
  return found->key;
}

bool KeyTranslator::shift_held() const { return held_[kLeftShift] || held_[kRightShift]; }

bool KeyTranslator::command_held() const {
  return held_[kLeftCtrl] || held_[kRightCtrl] || held_[kLeftAlt] || held_[kRightAlt] ||
         held_[kLeftWindows] || held_[kRightWindows];
}

/// Lock keys take effect in the guest some time after they are sent, so they are counted here; the lights
/// correct the count whenever the guest changes them.
void KeyTranslator::follow_leds(std::uint8_t leds) {
  if (((leds ^ leds_) & kLedCaps) != 0) {
    caps_ = (leds & kLedCaps) != 0;
  }
  if (((leds ^ leds_) & kLedNum) != 0) {
    num_ = (leds & kLedNum) != 0;
  }
  leds_ = leds;
}

void KeyTranslator::emit(KeyNumber key, bool down, std::vector<KeyEvent>& out) {
  if (!down && !held_[key]) {
    return;
  }
  if (down && !held_[key]) {
    caps_ ^= key == kCapsLock;
    num_ ^= key == kNumLock;
  }
  held_[key] = down;
  out.push_back({key, down});
}

/// Presses `key` with Shift as wanted, where it now is the other way.
void KeyTranslator::press_with_shift(KeyNumber key, bool shift, std::vector<KeyEvent>& out) {
  if (shift) {
    out.push_back({kLeftShift, true});
    emit(key, true, out);
    out.push_back({kLeftShift, false});
    return;
  }
  constexpr std::array kShifts = {kLeftShift, kRightShift};
  for (const KeyNumber each : kShifts) {
    if (held_[each]) {
      out.push_back({each, false});
    }
  }
  emit(key, true, out);
  for (const KeyNumber each : kShifts) {
    if (held_[each]) {
      out.push_back({each, true});
    }
  }
}

void KeyTranslator::press(std::uint32_t keysym, KeyForKeysym wanted, std::vector<KeyEvent>& out) {
  const bool alt = held_[kLeftAlt] || held_[kRightAlt];
  KeyNumber key = wanted.key;
  std::optional<bool> shift;
  switch (wanted.needs) {
    case KeyNeeds::kNothing:
      if (key == kPrintScreen && alt) {
        key = kSysRq;
      }
      if (level3_held_ && !is_modifier(key)) {
        emit(kRightAlt, true, out);  // AltGr with a key that is no character can only have meant Alt
      }
      break;
    // With Ctrl or Alt the client names a key rather than a character: Ctrl+Shift+A may come with 'a' or 'A'.
    case KeyNeeds::kNoShift:
      if (!command_held()) {
        shift = false;
      }
      break;
    case KeyNeeds::kShift: shift = true; break;
    case KeyNeeds::kLower:
      if (!command_held()) {
        shift = caps_;
      }
      break;
    case KeyNeeds::kUpper:
      if (!command_held()) {
        shift = !caps_;
      }
      break;
    case KeyNeeds::kNumLock:
      if (!alt) {  // Alt with keypad digits enters a character code, whatever Num Lock says
        key = num_ ? key : main_key_for_keypad(key);
        shift = false;
      }
      break;
    case KeyNeeds::kNavigate:
      if (num_ && !shift_held()) {
        key = static_cast<KeyNumber>(key | 0x80);  // the same key outside the keypad
      }
      break;
  }
  std::erase_if(pressed_, [&](const Pressed& each) { return each.keysym == keysym || each.key == key; });
  pressed_.push_back({keysym, key});
  if (shift && *shift != shift_held()) {
    press_with_shift(key, *shift, out);
  } else {
    emit(key, true, out);
  }
}

void KeyTranslator::keysym(std::uint32_t keysym, bool down, std::uint8_t leds, std::vector<KeyEvent>& out) {
  follow_leds(leds);
  if (keysym == kIsoLevel3Shift || keysym == kModeSwitch) {
    // The character that follows says what AltGr was for; the guest would take it for Alt.
    level3_held_ = down;
    if (!down) {
      emit(kRightAlt, false, out);
    }
    return;
  }
  if (!down) {
    const auto pressed = std::ranges::find(pressed_, keysym, &Pressed::keysym);
    if (pressed != pressed_.end()) {
      const KeyNumber key = pressed->key;
      pressed_.erase(pressed);
      emit(key, false, out);
    } else if (const auto known = key_for_keysym(keysym)) {
      // Pressed under another name: '@' goes down, Shift up, '2' up.
      std::erase_if(pressed_, [&](const Pressed& each) { return each.key == known->key; });
      emit(known->key, false, out);
    }
    return;
  }
  const auto wanted = key_for_keysym(keysym);
  if (!wanted) {
    log_once(
        LogLevel::kWarning, fmt::format("keysym {:x}", keysym),
        fmt::format("VNC: a client sent keysym {:#x}, which a US keyboard does not have; ignored", keysym));
    return;
  }
  press(keysym, *wanted, out);
}

void KeyTranslator::key(KeyNumber key, bool down, std::uint8_t leds, std::vector<KeyEvent>& out) {
  follow_leds(leds);
  if (key != 0) {
    emit(key, down, out);
  }
}

void KeyTranslator::release_all(std::vector<KeyEvent>& out) {
  for (unsigned key = 0; key < held_.size(); ++key) {
    emit(static_cast<KeyNumber>(key), false, out);
  }
  pressed_.clear();
  level3_held_ = false;
}

}  // namespace whistler
