// QMP's blockdev-add and blockdev-del: images for blockdev-backup to write to.
//
// Missing: nodes that refer to other nodes (they are refused), and nodes in the place of a drive's image.
#pragma once

#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

// They run piece by piece under the machine lock, and the machine goes on in between.
[[nodiscard]] Task<Answer<Json>> add_node(MachineControl& machine, Arguments arguments);
[[nodiscard]] Task<Answer<Json>> delete_node(MachineControl& machine, Arguments arguments);

}  // namespace whistler::qmp
