// QMP's commands that begin jobs on the chain of a drive's images. Clients name a layer by its file, or by
// the node name that query-named-block-nodes gives.
#pragma once

#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

[[nodiscard]] Answer<Json> block_stream(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> block_commit(MachineControl& machine, Arguments& arguments);
/// Runs piece by piece under the machine lock, and the machine goes on in between.
[[nodiscard]] Task<Answer<Json>> drive_mirror(MachineControl& machine, Arguments arguments);
/// The layers of every drive.
[[nodiscard]] Answer<Json> query_named_block_nodes(MachineControl& machine, Arguments& arguments);

}  // namespace whistler::qmp
