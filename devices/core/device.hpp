// What every chip is to the machine.
#pragma once

#include <string_view>

#include "base/result.hpp"
#include "base/state.hpp"
#include "base/task.hpp"

namespace whistler {

/// One chip. Its dependencies (Clock, TimerQueue, IrqLine, GuestMemory, BlockDevice) come through the constructor; it
/// knows no machine, no KVM, no JSON, no global. All calls are made under the machine lock.
class Device {
 public:
  virtual ~Device() = default;

  /// Unique in a machine and stable over versions: it names the saved state ("piix-ide", "serial0").
  [[nodiscard]] virtual std::string_view id() const = 0;

  /// The state after power-on reset, as a fresh object has it; interrupt lines and timers included.
  virtual void reset() = 0;

  virtual void save(StateWriter& writer) const = 0;

  /// Adopts a saved state: checks it, recomputes interrupt lines, re-arms timers. On an error the device is as it was.
  [[nodiscard]] virtual Result<void> load(const StateReader& reader) = 0;

  /// Ends when no I/O of this device is in flight. vCPUs are stopped; new I/O does not start.
  [[nodiscard]] virtual Task<void> drain() { co_return; }
};

}  // namespace whistler
