// The keyboard controller.
// Models: the 8042 of a PS/2-style AT: status, one-byte output buffer fed by replies of the controller, the
// keyboard and the mouse in that order, command byte with translation from scan code set 2 to 1, both clock
// lines, input and output ports, self tests, A20 and reset, IRQ 1 and 12.
// Missing: timing (a byte is there as soon as the last one was read; no time-out or parity errors), the
// password commands A4-A6, the multiplexed mode of notebooks.
// Documentation: IBM PS/2 Hardware Interface Technical Reference, "Keyboard/Auxiliary Device Controller";
// Intel UPI-42 datasheet for F0-FF.
#pragma once

#include <array>
#include <cstdint>

#include "devices/core/device.hpp"
#include "devices/core/io_handler.hpp"
#include "devices/core/irq_line.hpp"
#include "devices/input/ps2_device.hpp"
#include "devices/legacy/system_control.hpp"

namespace whistler {

/// Offset 0 is the data port (0x60 of a PC), offset 4 status and command (0x64). One byte wide.
class I8042 final : public Device, public IoHandler {
 public:
  /// The references must outlive the controller; it takes over both devices' on_byte hook.
  I8042(IrqLine keyboard_irq, IrqLine mouse_irq, Ps2Device& keyboard, Ps2Device& mouse,
        SystemControl& system);

  [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

  /// Whether a byte of the keyboard is in the output buffer, not read by the guest yet.
  [[nodiscard]] bool keyboard_byte_waits() const { return state_.full && !state_.from_mouse; }

  [[nodiscard]] std::string_view id() const override { return "i8042"; }
  void reset() override;
  void save(StateWriter& writer) const override { writer.put(state_); }
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  struct State {
    std::array<std::uint8_t, 32> ram{};  ///< byte 0 is the command byte
    std::uint8_t command = 0;            ///< the command whose argument is awaited, or 0
    bool last_write_was_command = true;  ///< status bit 3
    bool self_tested = false;            ///< status bit 2
    std::uint8_t output_port = 0;        ///< as written, without reset and A20
    std::uint8_t output = 0;             ///< the output buffer; its last byte can be read again
    bool full = false;                   ///< status bit 0
    bool from_mouse = false;             ///< `output` counts as the mouse's: status bit 5, IRQ 12
    std::uint8_t reply = 0;              ///< the controller's answer waits for the output buffer
    bool reply_waits = false;
    bool reply_as_mouse = false;
    bool break_prefix = false;  ///< translation has swallowed F0
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("ram", self.ram);
      visit("command", self.command);
      visit("last_write_was_command", self.last_write_was_command);
      visit("self_tested", self.self_tested);
      visit("output_port", self.output_port);
      visit("output", self.output);
      visit("full", self.full);
      visit("from_mouse", self.from_mouse);
      visit("reply", self.reply);
      visit("reply_waits", self.reply_waits);
      visit("reply_as_mouse", self.reply_as_mouse);
      visit("break_prefix", self.break_prefix);
    }
  };

  [[nodiscard]] std::uint8_t mode() const { return state_.ram[0]; }
  [[nodiscard]] std::uint8_t status() const;
  [[nodiscard]] std::uint8_t output_port() const;
  [[nodiscard]] std::uint8_t read_data();
  void write_data(std::uint8_t value);
  void write_command(std::uint8_t command);
  void finish_command(std::uint8_t argument);
  void write_output_port(std::uint8_t value);
  void set_mode(std::uint8_t value);
  void answer(std::uint8_t byte, bool as_mouse = false);
  void offer_keyboard_byte();
  void offer(std::uint8_t byte, bool from_mouse);
  void refill();
  void update_irqs();

  IrqLine keyboard_irq_;
  IrqLine mouse_irq_;
  Ps2Device& keyboard_;
  Ps2Device& mouse_;
  SystemControl& system_;
  State state_;
};

}  // namespace whistler
