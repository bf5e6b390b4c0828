// A PS/2 keyboard.
// Models: IBM enhanced keyboard, 101 to 104 keys and the Japanese, Korean, Brazilian and multimedia ones:
// scan code sets 1, 2 and 3, E0 and E1 sequences (Pause, PrintScreen with and without modifiers), all
// commands, LEDs, a queue that overruns as the real one does.
// Missing: auto-repeat (the viewer's own repeats are passed on; rate and delay are stored), the fake shifts
// round the arrow keys while Num Lock is on, set 3's per-key make, break and typematic options (accepted,
// stored as one mode).
// Documentation: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-key)", October
// 1990.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "devices/core/device.hpp"
#include "devices/core/input.hpp"
#include "devices/input/ps2_device.hpp"

namespace whistler {

class Ps2Keyboard final : public Device, public Ps2Device {
 public:
  Ps2Keyboard() = default;

  /// A key goes down or up. Down again without up is a repeat and is sent; up without down is not sent.
  void key(KeyNumber key, bool down);
  /// Bytes of key strokes not read yet.
  [[nodiscard]] std::size_t keys_pending() const { return state_.strokes.count; }
  /// False while the guest has switched scanning off: keys pressed meanwhile are lost.
  [[nodiscard]] bool scanning() const { return state_.scanning; }
  /// Bit 0 scroll, 1 num, 2 caps lock.
  [[nodiscard]] std::uint8_t leds() const { return state_.leds; }

  void receive(std::uint8_t byte) override;
  [[nodiscard]] bool has_byte() const override { return !state_.replies.empty() || !state_.strokes.empty(); }
  [[nodiscard]] std::uint8_t take_byte() override;

  [[nodiscard]] std::string_view id() const override { return "ps2-keyboard"; }
  void reset() override;
  void save(StateWriter& writer) const override { writer.put(state_); }
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  static constexpr std::size_t kStrokeBytes = 64;
  static constexpr std::size_t kReplyBytes = 16;
  struct State {
    Ps2Queue<kStrokeBytes> strokes;  ///< scan codes
    Ps2Queue<kReplyBytes> replies;   ///< answers to commands: they go first
    std::uint8_t command = 0;        ///< the command whose argument is awaited, or 0
    std::uint8_t scan_set = 2;
    bool scanning = true;
    bool overrun = false;     ///< the overrun code is in `strokes`; nothing is added until there is room
    bool makes_only = false;  ///< set 3: keys send no break codes
    std::uint8_t leds = 0;
    std::uint8_t typematic = 0x2B;        ///< 10.9 characters a second after 500 ms
    std::uint8_t last_byte = 0;           ///< for RESEND
    std::array<std::uint8_t, 32> held{};  ///< keys that are down, a bit each
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("strokes", self.strokes);
      visit("replies", self.replies);
      visit("command", self.command);
      visit("scan_set", self.scan_set);
      visit("scanning", self.scanning);
      visit("overrun", self.overrun);
      visit("makes_only", self.makes_only);
      visit("leds", self.leds);
      visit("typematic", self.typematic);
      visit("last_byte", self.last_byte);
      visit("held", self.held);
    }
  };

  [[nodiscard]] bool is_held(KeyNumber key) const { return (state_.held[key / 8] >> (key % 8) & 1) != 0; }
  void set_held(KeyNumber key, bool down);
  void reply(std::initializer_list<std::uint8_t> bytes);
  void queue_stroke(std::span<const std::uint8_t> bytes);
  void start_command(std::uint8_t command);
  void finish_command(std::uint8_t argument);
  void set_defaults();

  State state_;
};

}  // namespace whistler
