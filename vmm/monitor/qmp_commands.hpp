// What the monitor can do, by QMP's own names and arguments.
//
// Missing: block jobs and media (blockdev-*, block-*, drive-backup, eject), passwords, memory dumps,
// inject-nmi, human-monitor-command, query-cpus-fast, query-chardev, query-mice.
#pragma once

#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

/// Does what `request` says; what it returns is what the client gets. The main thread, without the machine
/// lock.
[[nodiscard]] Answer<Json> execute(MachineControl& machine, const Request& request);

}  // namespace whistler::qmp
