// What the monitor can do, by QMP's own names and arguments.
//
// Missing: block jobs, blockdev-add and named nodes, migration.
#pragma once

#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

/// Does what `request` says; what it returns is what the client gets. The main thread, without the machine
/// lock.
[[nodiscard]] Answer<Json> execute(MachineControl& machine, const Request& request);

}  // namespace whistler::qmp
