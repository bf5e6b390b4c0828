// System control port B: NMI status, speaker and the gate of timer 2.
// Models: bits 0 (timer 2 gate), 1 (speaker data), 2 and 3 (NMI disables) as written; bit 4 toggles with the
// memory refresh, bit 5 is timer 2's output. Use it where no in-kernel interval timer answers the port
// itself.
// Missing: NMI sources: bits 6 and 7 read as 0. No sound.
// Documentation: Intel 82371SB (PIIX3), section 2.5.4 "NMI status and control register".
#pragma once

#include <cstdint>
#include <functional>

#include "base/clock.hpp"
#include "devices/core/device.hpp"
#include "devices/core/io_handler.hpp"

namespace whistler {

/// One byte at offset 0.
class Port61 final : public Device, public IoHandler {
 public:
  /// How the interval timer is reached; either may be empty (the output then reads 0).
  struct Timer2 {
    std::function<bool()> output;        ///< level of OUT 2 now
    std::function<void(bool)> set_gate;  ///< drives GATE 2
  };
  explicit Port61(const Clock& clock, Timer2 timer2 = {});

  [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

  [[nodiscard]] std::string_view id() const override { return "port61"; }
  void reset() override;
  void save(StateWriter& writer) const override { writer.put(state_); }
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  struct State {
    std::uint8_t control = 0;  ///< bits 0-3
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) { visit("control", self.control); }
  };
  void drive_gate() const;

  const Clock& clock_;
  Timer2 timer2_;
  State state_;
};

}  // namespace whistler
