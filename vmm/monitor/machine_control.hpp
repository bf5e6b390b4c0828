// What a monitor may ask of a machine.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/hosted_pc.hpp"
#include "vmm/monitor/key_feeder.hpp"

namespace whistler {

enum class RunState : std::uint8_t {
  kRunning,
  kPaused,   ///< by stop()
  kIoError,  ///< waits for room on the host's disk
};

/// What the guest's processors are about.
struct Activity {
  std::uint64_t exits = 0;   ///< to user space, of all vCPUs since the start
  Nanoseconds cpu_time = 0;  ///< of the host, that all vCPUs have used; stands still while they halt
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
  /// Does not disturb them.
  [[nodiscard]] virtual Activity activity() = 0;
  /// Whether every vCPU halts with interrupts off: only a reset helps. Holds them for a moment.
  [[nodiscard]] virtual bool halted_for_good() = 0;
  /// Registers, descriptor tables and the code at the instruction pointers, for people. Holds the vCPUs for a
  /// moment.
  [[nodiscard]] virtual std::string registers() = 0;
  /// A non-maskable interrupt for every vCPU.
  virtual void inject_nmi() = 0;
  /// The host's thread of each vCPU, as ps -L shows them.
  [[nodiscard]] virtual std::vector<int> thread_ids() = 0;
  /// Where vCPU `index` sees the guest-linear `address` in guest-physical memory; nothing if it is not
  /// mapped. Holds the vCPUs for a moment.
  [[nodiscard]] virtual std::optional<std::uint64_t> translate(unsigned index, std::uint64_t address) = 0;
  /// Tells the monitor's clients of an event that happens now. Under the machine lock.
  virtual void tell(std::string_view event, nlohmann::json data) = 0;
  [[nodiscard]] virtual HostedPc& pc() = 0;
  /// Keys that wait for the guest. Under the machine lock.
  [[nodiscard]] virtual KeyFeeder& keys() = 0;
  /// The mouse buttons that monitors hold down. Under the machine lock.
  [[nodiscard]] unsigned& pointer_buttons() { return pointer_buttons_; }

 private:
  unsigned pointer_buttons_ = 0;
};

}  // namespace whistler
