// From the characters and keys a VNC client names to the keys of a US keyboard.
//
// RFC 6143 section 7.5.4 says how: a keysym names a character, and the server presses whatever gives it that
// character, Shift included. Keysym values: X11 keysymdef.h; key numbers: devices/core/input.hpp. Missing:
// characters a US keyboard lacks (ignored, logged once), the extra keys of Japanese and Korean keyboards. No
// thread, no lock: one object belongs to one client.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <vector>

#include "devices/core/input.hpp"

namespace whistler {

/// What the guest's modifiers must be for a key to give the wanted character.
enum class KeyNeeds : std::uint8_t {
  kNothing,  ///< the same with any modifiers: F1, Return, Shift itself
  kNoShift,  ///< '2'
  kShift,    ///< '@'
  kLower,    ///< 'a': Shift up, or down while Caps Lock is on
  kUpper,    ///< 'A'
  kNumLock,  ///< keypad digit
  kNavigate  ///< keypad arrow: the same key without Num Lock
};

struct KeyForKeysym {
  KeyNumber key = 0;
  KeyNeeds needs = KeyNeeds::kNothing;
  bool operator==(const KeyForKeysym&) const = default;
};

/// The US key for a keysym; nothing if there is none.
[[nodiscard]] std::optional<KeyForKeysym> key_for_keysym(std::uint32_t keysym);

/// One key going down or up.
struct KeyEvent {
  KeyNumber key = 0;
  bool down = false;
  bool operator==(const KeyEvent&) const = default;
};

/// Turns one client's key events into those of a keyboard, and remembers what is held down.
class KeyTranslator {
 public:
  /// A plain RFB key event. Shift is pressed or lifted around the key where its character needs that, and put
  /// back at once. `leds` are InputSink::leds() now. Appends to `out`.
  void keysym(std::uint32_t keysym, bool down, std::uint8_t leds, std::vector<KeyEvent>& out);
  /// A key given by number (QEMU extended key event): passed on as it is. 0 and releases of keys not held are
  /// dropped.
  void key(KeyNumber key, bool down, std::uint8_t leds, std::vector<KeyEvent>& out);
  /// Releases what is still down: the client has gone.
  void release_all(std::vector<KeyEvent>& out);
  [[nodiscard]] bool holds(KeyNumber key) const { return held_[key]; }

 private:
  struct Pressed {
    std::uint32_t keysym;
    KeyNumber key;
  };

  void follow_leds(std::uint8_t leds);
  void emit(KeyNumber key, bool down, std::vector<KeyEvent>& out);
  void press_with_shift(KeyNumber key, bool shift, std::vector<KeyEvent>& out);
  void press(std::uint32_t keysym, KeyForKeysym wanted, std::vector<KeyEvent>& out);
  [[nodiscard]] bool shift_held() const;
  [[nodiscard]] bool command_held() const;

  std::bitset<256> held_;         ///< as the guest sees them
  std::vector<Pressed> pressed_;  ///< which key a keysym went down as, to release the same one
  bool level3_held_ = false;      ///< AltGr, which a US layout does not have
  std::uint8_t leds_ = 0;         ///< last seen
  bool caps_ = false;             ///< as the guest has them, or soon will
  bool num_ = false;
};

}  // namespace whistler
