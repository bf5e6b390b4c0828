// What clients of the monitor are told without asking.
#pragma once

#include "vmm/monitor/machine_control.hpp"

namespace whistler::qmp {

/// From now on they are told of trays, jobs and failed requests of drives. Under the machine lock.
void watch_machine(MachineControl& machine);

}  // namespace whistler::qmp
