// What the monitor can do, by QMP's own names and arguments.
//
// Missing: migration.
#pragma once

#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

/// Does what `request` says. Commands that wait for images are answered later, while the event loop turns;
/// all others before this returns. The main thread, without the machine lock.
void execute(MachineControl& machine, const Request& request, Reply reply);

}  // namespace whistler::qmp
