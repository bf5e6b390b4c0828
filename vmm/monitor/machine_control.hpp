// What a monitor may ask of a machine.
#pragma once

#include "vmm/hosted_pc.hpp"

namespace whistler {

enum class RunState : std::uint8_t {
  kRunning,
  kPaused,   ///< by stop()
  kIoError,  ///< waits for room on the host's disk
};

/// The main thread, without the machine lock.
class MachineControl {
 public:
  virtual ~MachineControl() = default;

  [[nodiscard]] virtual RunState run_state() = 0;
  /// Holds every vCPU and guest time; returns when none is inside the guest. Does nothing when it is so
  /// already.
  virtual void stop() = 0;
  /// Lets them go on.
  virtual void cont() = 0;
  virtual void reset() = 0;
  /// Presses the power button: what the guest makes of it is its own affair.
  virtual void power_button() = 0;
  /// Ends the machine with status 0; its disks are flushed and closed.
  virtual void quit() = 0;
  [[nodiscard]] virtual HostedPc& pc() = 0;
  /// The mouse buttons that monitors hold down. Under the machine lock.
  [[nodiscard]] unsigned& pointer_buttons() { return pointer_buttons_; }

 private:
  unsigned pointer_buttons_ = 0;
};

}  // namespace whistler
