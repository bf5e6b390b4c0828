// How a command waits for the storage engine: the guest and the rest of the machine go on meanwhile.
#pragma once

#include <mutex>
#include <optional>

#include "base/task.hpp"
#include "vmm/monitor/machine_control.hpp"

namespace whistler::qmp {

/// Runs `task` under the machine lock, piece by piece, and returns its result. The main thread, without the
/// lock.
template <typename T>
[[nodiscard]] T wait_for(MachineControl& machine, Task<T> task) {
  auto& lock = machine.pc().lock();
  auto& loop = machine.pc().loop();
  std::optional<T> result;
  std::unique_lock hold(lock);
  spawn(std::move(task), [&](T value) {
    result.emplace(std::move(value));
    loop.wake();
  });
  while (!result) {
    hold.unlock();
    loop.run_once(-1);
    hold.lock();
  }
  return std::move(*result);
}

}  // namespace whistler::qmp
