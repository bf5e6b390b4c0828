// What clients of the monitor are told without asking.
#pragma once

#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

/// From now on they are told of trays, jobs and failed requests of drives, of VNC clients, and of a guest
/// that sets its clock. Under the machine lock.
void watch_machine(MachineControl& machine);
/// query-vnc: who is there.
[[nodiscard]] Json query_vnc(MachineControl& machine);

}  // namespace whistler::qmp
