// QMP's commands that look into the guest, and human-monitor-command, which scripts of old use.
#pragma once

#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

/// Guest-physical memory into a file; what is no RAM reads as ones.
[[nodiscard]] Answer<Json> save_physical(MachineControl& machine, Arguments& arguments);
/// The same by the page tables of one processor.
[[nodiscard]] Answer<Json> save_linear(MachineControl& machine, Arguments& arguments);

[[nodiscard]] Answer<Json> set_password(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> change_vnc_password(MachineControl& machine, Arguments& arguments);

/// A line as QEMU's own monitor takes it, answered with the text it prints. Knows: info (block, chardev,
/// cpus, kvm, mice, name, pci, registers, status, uuid, version), xp and x with numbers, sendkey, stop, cont,
/// system_reset, system_powerdown, quit, nmi, eject, change, screendump.
void human_command(MachineControl& machine, Arguments& arguments, Reply reply);

}  // namespace whistler::qmp
