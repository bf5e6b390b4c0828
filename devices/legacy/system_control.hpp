// The two things the keyboard controller and port 0x92 both do to the machine.
#pragma once

namespace whistler {

/// The A20 gate and the processor's reset wire. Under the machine lock.
class SystemControl {
 public:
  virtual ~SystemControl() = default;
  virtual void set_a20(bool enabled) = 0;
  [[nodiscard]] virtual bool a20() const = 0;
  /// Asks for a reset of the machine; may return before it happens.
  virtual void request_reset() = 0;
};

}  // namespace whistler
