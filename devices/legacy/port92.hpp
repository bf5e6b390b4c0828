// System control port A.
// Models: the A20 gate (bit 1), fast reset (a rising bit 0); all bits read as written here. It holds the
// machine's one A20 gate, open at reset, which the keyboard controller moves through SystemControl: the last
// writer wins.
// Missing: the password lock and the hard disk lights (bits 3, 6 and 7 are stored).
// Documentation: Intel 82371SB (PIIX3), section 2.5.7 "Port 92 register"; IBM PS/2 Hardware Technical
// Reference.
#pragma once

#include <cstdint>
#include <functional>

#include "devices/core/device.hpp"
#include "devices/core/io_handler.hpp"
#include "devices/legacy/system_control.hpp"

namespace whistler {

/// One byte at offset 0.
class Port92 final : public Device, public IoHandler, public SystemControl {
 public:
  /// Both may be empty. `on_reset` is asked for a machine reset; `on_a20` hears each change of the gate.
  explicit Port92(std::function<void()> on_reset = {}, std::function<void(bool)> on_a20 = {});

  [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

  void set_a20(bool enabled) override;
  [[nodiscard]] bool a20() const override;
  void request_reset() override;

  [[nodiscard]] std::string_view id() const override { return "port92"; }
  void reset() override;
  void save(StateWriter& writer) const override { writer.put(state_); }
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  struct State {
    std::uint8_t value = 0;
    bool a20 = true;
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("value", self.value);
      visit("a20", self.a20);
    }
  };

  std::function<void()> on_reset_;
  std::function<void(bool)> on_a20_;
  State state_;
};

}  // namespace whistler
