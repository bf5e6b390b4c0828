// QMP's commands for drives: media and trays, sizes, and what is known of each.
//
// A format is never guessed: where QEMU looks at the file, "format" is "raw" unless it is given. Missing:
// blockdev-insert-medium, which needs QEMU's named nodes.
#pragma once

#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

// Those that wait for images run under the machine lock, piece by piece; the machine goes on in between.
[[nodiscard]] Task<Answer<Json>> eject(MachineControl& machine, Arguments arguments);
[[nodiscard]] Task<Answer<Json>> change_medium(MachineControl& machine, Arguments arguments);
[[nodiscard]] Answer<Json> open_tray(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> close_tray(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Task<Answer<Json>> remove_medium(MachineControl& machine, Arguments arguments);
[[nodiscard]] Task<Answer<Json>> resize_disk(MachineControl& machine, Arguments arguments);

[[nodiscard]] Json query_block(MachineControl& machine);
[[nodiscard]] Answer<Json> query_block_stats(MachineControl& machine, Arguments& arguments);

/// What query-block says of the medium in a drive, which has one. Under the machine lock.
[[nodiscard]] Json inserted(Drive& drive);
/// The drive called `id`; null if there is none. Under the machine lock.
[[nodiscard]] Drive* find_drive(MachineControl& machine, std::string_view id);
/// QEMU's words for a drive that is not there by either name.
[[nodiscard]] std::unexpected<Refusal> no_such_drive(std::string_view device, std::string_view node);
/// QEMU's words for a file that could not be opened; if `stop` was asked for, that is why.
[[nodiscard]] std::unexpected<Refusal> could_not_open(const std::string& file, const Error& error,
                                                      const Stop& stop);

/// From now on clients are told when a tray moves. Under the machine lock.
void watch_trays(MachineControl& machine);

}  // namespace whistler::qmp
