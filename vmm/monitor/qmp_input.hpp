// QMP's commands for keys and pointer.
#pragma once

#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

/// The keys go down in their order and up again in the opposite one; the PS/2 queue keeps them until the
/// guest reads them, so how long they are held is the guest's pace and not the hold time.
[[nodiscard]] Answer<Json> send_key(MachineControl& machine, Arguments& arguments);

/// Keys at once, in their order; what the pointer events add up to as one report. All of the list or nothing.
[[nodiscard]] Answer<Json> input_send_event(MachineControl& machine, Arguments& arguments);

/// Queues changes of keys, "keys": [{"key": "a", "down": true}, ...]. The next one goes to the keyboard once
/// the guest has read the last one; at least "interval" milliseconds lie between two. Returns an "id"; the
/// event X_KEYS_TYPED with that id says that all of them have been read.
[[nodiscard]] Answer<Json> type_keys(MachineControl& machine, Arguments& arguments);

/// How many of them the guest has not read yet.
[[nodiscard]] Json keys_left(MachineControl& machine);

}  // namespace whistler::qmp
