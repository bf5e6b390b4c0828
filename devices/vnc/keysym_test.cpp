#include "devices/vnc/keysym.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace whistler;

namespace {

constexpr std::uint32_t kShiftL = 0xFFE1, kShiftR = 0xFFE2, kControlL = 0xFFE3, kAltL = 0xFFE9,
                        kCaps = 0xFFE5;
constexpr std::uint32_t kNumLockSym = 0xFF7F, kLevel3 = 0xFE03, kF4 = 0xFFC1, kPrint = 0xFF61;
constexpr std::uint8_t kLedNum = 2, kLedCaps = 4;

/// A keyboard whose strokes read like "+2a +03 -2a".
struct Keyboard {
  KeyTranslator translator;
  std::vector<KeyEvent> events;
  std::uint8_t leds = 0;

  Keyboard& down(std::uint32_t keysym) {
    translator.keysym(keysym, true, leds, events);
    return *this;
  }
  Keyboard& up(std::uint32_t keysym) {
    translator.keysym(keysym, false, leds, events);
    return *this;
  }
  std::string taken() {
    std::string text;
    for (const KeyEvent& event : std::exchange(events, {})) {
      constexpr char kDigits[] = "0123456789abcdef";
      text += text.empty() ? "" : " ";
      text += event.down ? '+' : '-';
      text += kDigits[event.key >> 4];
      text += kDigits[event.key & 15];
    }
    return text;
  }
};

/// What a US keyboard's character keys give, by holding Shift as the translator does. The guest's side of the
/// test.
char typed_by(const std::vector<KeyEvent>& events, bool caps) {
  constexpr std::string_view kRows[] = {"1234567890-=", "qwertyuiop[]", "asdfghjkl;'`", "\\zxcvbnm,./"};
  constexpr std::string_view kShifted[] = {"!@#$%^&*()_+", "QWERTYUIOP{}", "ASDFGHJKL:\"~", "|ZXCVBNM<>?"};
  constexpr KeyNumber kFirst[] = {0x02, 0x10, 0x1E, 0x2B};
  bool shift = false;
  for (const KeyEvent& event : events) {
    if (event.key == 0x2A || event.key == 0x36) {
      shift = event.down;
    } else if (event.down && event.key == 0x39) {
      return ' ';
    } else if (event.down) {
      for (std::size_t row = 0; row < 4; ++row) {
        const auto at = static_cast<std::size_t>(event.key - kFirst[row]);
        if (event.key >= kFirst[row] && at < kRows[row].size()) {
          const char plain = kRows[row][at];
          const bool letter = plain >= 'a' && plain <= 'z';
          return shift != (letter && caps) ? kShifted[row][at] : plain;
        }
      }
    }
  }
  return 0;
}

}  // namespace

TEST_CASE("keysym_every_ascii_character_without_shift_gives_that_character", "[vnc]") {
  for (const std::uint8_t leds : {std::uint8_t{0}, kLedCaps}) {
    for (char c = ' '; c < 0x7F; ++c) {
      Keyboard keyboard;
      keyboard.leds = leds;
      keyboard.down(static_cast<std::uint32_t>(c));
      CHECK(typed_by(keyboard.events, leds != 0) == c);
    }
  }
}

TEST_CASE("keysym_every_ascii_character_while_client_holds_shift_gives_that_character", "[vnc]") {
  for (char c = ' '; c < 0x7F; ++c) {
    Keyboard keyboard;
    keyboard.down(kShiftR).down(static_cast<std::uint32_t>(c));
    CHECK(typed_by(keyboard.events, false) == c);
  }
}

TEST_CASE("keysym_at_without_shift_presses_shift_around_the_key", "[vnc]") {
  Keyboard keyboard;
  CHECK(keyboard.down('@').taken() == "+2a +03 -2a");
  CHECK(keyboard.up('@').taken() == "-03");
}

TEST_CASE("keysym_at_with_shift_held_does_not_double_shift", "[vnc]") {
  Keyboard keyboard;
  CHECK(keyboard.down(kShiftL).down('@').up('@').up(kShiftL).taken() == "+2a +03 -03 -2a");
}

TEST_CASE("keysym_release_under_other_name_releases_the_pressed_key", "[vnc]") {
  Keyboard keyboard;
  keyboard.down(kShiftL).down('@').up(kShiftL).taken();
  CHECK(keyboard.up('2').taken() == "-03");
  CHECK(keyboard.up('@').taken().empty());
}

TEST_CASE("keysym_lower_case_with_shift_held_lifts_and_restores_shift", "[vnc]") {
  Keyboard keyboard;
  keyboard.down(kShiftL).down(kShiftR).taken();
  CHECK(keyboard.down('a').taken() == "-2a -36 +1e +2a +36");
}

TEST_CASE("keysym_shortcut_with_ctrl_and_shift_keeps_shift", "[vnc]") {
  Keyboard keyboard;
  CHECK(keyboard.down(kControlL).down(kShiftL).down('a').taken() == "+1d +2a +1e");
  Keyboard upper;
  CHECK(upper.down(kControlL).down('A').taken() == "+1d +1e");
}

TEST_CASE("keysym_caps_lock_pressed_counts_before_the_guest_lights_it", "[vnc]") {
  Keyboard keyboard;
  CHECK(keyboard.down(kCaps).up(kCaps).down('A').up('A').taken() == "+3a -3a +1e -1e");
  keyboard.leds = kLedCaps;
  CHECK(keyboard.down('a').taken() == "+2a +1e -2a");
  keyboard.up('a').taken();
  keyboard.leds = 0;  // the guest switched it off by itself
  CHECK(keyboard.down('a').taken() == "+1e");
}

TEST_CASE("keysym_keypad_digit_follows_num_lock", "[vnc]") {
  constexpr std::uint32_t kKp7 = 0xFFB7, kKpHome = 0xFF95, kKpDecimal = 0xFFAE;
  Keyboard keyboard;
  CHECK(keyboard.down(kKp7).up(kKp7).taken() == "+08 -08");
  CHECK(keyboard.down(kKpDecimal).up(kKpDecimal).taken() == "+34 -34");
  CHECK(keyboard.down(kKpHome).up(kKpHome).taken() == "+47 -47");
  keyboard.leds = kLedNum;
  CHECK(keyboard.down(kKp7).up(kKp7).taken() == "+47 -47");
  CHECK(keyboard.down(kKpHome).up(kKpHome).taken() == "+c7 -c7");
}

TEST_CASE("keysym_keypad_key_held_while_num_lock_changes_releases_what_was_pressed", "[vnc]") {
  Keyboard keyboard;
  CHECK(keyboard.down(0xFFB7).taken() == "+08");
  CHECK(keyboard.down(kNumLockSym).up(kNumLockSym).up(0xFFB7).taken() == "+45 -45 -08");
}

TEST_CASE("keysym_alt_with_keypad_digit_uses_the_keypad", "[vnc]") {
  Keyboard keyboard;
  CHECK(keyboard.down(kAltL).down(0xFFB6).taken() == "+38 +4d");
}

TEST_CASE("keysym_altgr_character_reaches_the_guest_without_alt", "[vnc]") {
  Keyboard keyboard;
  CHECK(keyboard.down(kLevel3).down('@').up('@').up(kLevel3).taken() == "+2a +03 -2a -03");
  CHECK(keyboard.down(kLevel3).down(kF4).up(kF4).up(kLevel3).taken() == "+b8 +3e -3e -b8");
}

TEST_CASE("keysym_special_keys_have_their_numbers", "[vnc]") {
  CHECK(key_for_keysym(0xFF13)->key == 0xC6);  // Pause
  CHECK(key_for_keysym(kPrint)->key == 0xB7);  // Print
  CHECK(key_for_keysym(0xFF15)->key == 0x54);  // Sys_Req
  CHECK(key_for_keysym(0xFF8D)->key == 0x9C);  // KP_Enter
  CHECK(key_for_keysym(0xFFAF)->key == 0xB5);  // KP_Divide
  CHECK(key_for_keysym(0xFFEB)->key == 0xDB);  // Super_L
  CHECK(key_for_keysym(0xFFC8)->key == 0x57);  // F11
  CHECK(key_for_keysym(0xFFC9)->key == 0x58);  // F12
  CHECK(key_for_keysym(0xFF53)->key == 0xCD);  // Right
  CHECK(key_for_keysym(0xFFFF)->key == 0xD3);  // Delete
  CHECK(key_for_keysym(0x01000041) == key_for_keysym('A'));
}

TEST_CASE("keysym_print_with_alt_is_sysrq", "[vnc]") {
  Keyboard keyboard;
  CHECK(keyboard.down(kAltL).down(kPrint).up(kPrint).up(kAltL).taken() == "+38 +54 -54 -38");
}

TEST_CASE("keysym_all_function_keys_are_known_and_distinct", "[vnc]") {
  std::bitset<256> seen;
  for (std::uint32_t keysym = 0xFFBE; keysym <= 0xFFD5; ++keysym) {
    const auto key = key_for_keysym(keysym);
    REQUIRE(key.has_value());
    CHECK_FALSE(seen[key->key]);
    seen.set(key->key);
  }
}

TEST_CASE("keysym_not_on_a_us_keyboard_is_ignored", "[vnc]") {
  Keyboard keyboard;
  for (const std::uint32_t keysym : {0xE4U, 0xDFU, 0x20ACU, 0x010020ACU, 0U, 0xFFFFFFFFU}) {
    CHECK(keyboard.down(keysym).up(keysym).taken().empty());
  }
}

TEST_CASE("keysym_repeated_press_is_passed_on_and_released_once", "[vnc]") {
  Keyboard keyboard;
  CHECK(keyboard.down('a').down('a').up('a').up('a').taken() == "+1e +1e -1e");
}

TEST_CASE("key_by_number_is_passed_on_and_seen_by_keysyms", "[vnc]") {
  Keyboard keyboard;
  keyboard.translator.key(0x2A, true, 0, keyboard.events);
  keyboard.translator.key(0x56, true, 0, keyboard.events);
  keyboard.translator.key(0, true, 0, keyboard.events);
  keyboard.translator.key(0x10, false, 0, keyboard.events);
  CHECK(keyboard.down('@').taken() == "+2a +56 +03");
}

TEST_CASE("key_release_all_releases_what_is_held_once", "[vnc]") {
  Keyboard keyboard;
  keyboard.down(kShiftL).down('@').down(kF4).taken();
  keyboard.translator.release_all(keyboard.events);
  CHECK(keyboard.taken() == "-03 -2a -3e");
  keyboard.translator.release_all(keyboard.events);
  CHECK(keyboard.taken().empty());
}

TEST_CASE("keysym_random_events_leave_nothing_held_after_release_all", "[vnc]") {
  Keyboard keyboard;
  std::bitset<256> guest;
  std::uint32_t random = 12345;
  const auto next = [&] { return random = random * 1664525 + 1013904223; };
  const auto follow = [&] {
    for (const KeyEvent& event : std::exchange(keyboard.events, {})) {
      guest[event.key] = event.down;
    }
  };
  for (int i = 0; i < 20000; ++i) {
    const std::uint32_t pick = next() >> 8;
    const std::uint32_t keysym = (pick & 1) != 0 ? 0x20 + pick / 16 % 0x60 : 0xFF00 + pick / 16 % 0x100;
    keyboard.leds = static_cast<std::uint8_t>(pick >> 12 & 7);
    if ((pick & 6) == 0) {
      keyboard.translator.key(static_cast<KeyNumber>(pick >> 4), (pick & 8) != 0, keyboard.leds,
                              keyboard.events);
    } else {
      keyboard.translator.keysym(keysym, (pick & 8) != 0, keyboard.leds, keyboard.events);
    }
    follow();
  }
  keyboard.translator.release_all(keyboard.events);
  follow();
  CHECK(guest.none());
}
