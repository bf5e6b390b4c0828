// Keys and pointers on their way from a viewer to the guest.
#pragma once

#include <cstddef>
#include <cstdint>

namespace whistler {

/// A key by its XT number: the scan code set 1 make code, with bit 7 set for keys sent with an E0 prefix (the
/// numbering of the RFB "QEMU extended key event"). Special: 0x54 SysRq (Alt+PrintScreen), 0xB7 PrintScreen,
/// 0xC6 Pause.
using KeyNumber = std::uint8_t;

/// Bits of a pointer's buttons.
inline constexpr unsigned kButtonLeft = 1;
inline constexpr unsigned kButtonRight = 2;
inline constexpr unsigned kButtonMiddle = 4;

/// Who takes input: the PS/2 devices, later a USB tablet. Under the machine lock.
class InputSink {
 public:
  virtual ~InputSink() = default;
  virtual void key(KeyNumber key, bool down) = 0;
  /// Relative motion, y downwards; `wheel` positive away from the user; `buttons` are those held now.
  virtual void pointer_move(int dx, int dy, int wheel, unsigned buttons) = 0;
  /// Absolute position, 0..32767 each way. A sink without absolute pointing turns it into relative motion.
  virtual void pointer_place(unsigned x, unsigned y, int wheel, unsigned buttons) = 0;
  /// True if pointer_place is exact.
  [[nodiscard]] virtual bool absolute() const = 0;
  /// Bytes of key strokes that the guest has not read yet: a sender that waits for 0 loses none.
  [[nodiscard]] virtual std::size_t keys_pending() const = 0;
  /// The keyboard's lights as the guest set them: bit 0 scroll, 1 num, 2 caps lock.
  [[nodiscard]] virtual std::uint8_t leds() const = 0;
};

}  // namespace whistler
