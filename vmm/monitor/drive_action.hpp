// What must happen to one or several drives at the same moment: snapshots, and the beginning of backups.
#pragma once

#include <memory>
#include <vector>

#include "base/task.hpp"
#include "vmm/drive_claims.hpp"
#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

/// All under the machine lock. A drive's requests are held from freeze() to commit() or abort().
class DriveAction {
 public:
  virtual ~DriveAction() = default;
  /// Null if it is about none.
  [[nodiscard]] virtual DriveImage* drive() = 0;
  /// Makes and opens files, until `stop` is asked for.
  [[nodiscard]] virtual Task<Answer<void>> prepare(Stop& stop) = 0;
  /// The last that can go wrong.
  [[nodiscard]] virtual Task<Answer<void>> freeze() = 0;
  virtual void commit() = 0;
  /// Takes back what was prepared and frozen.
  [[nodiscard]] virtual Task<void> abort() = 0;
};

using MadeAction = Answer<std::unique_ptr<DriveAction>>;
using MakeAction = MadeAction (*)(MachineControl& machine, DriveClaims& claims, Arguments& arguments);
// What their commands ask for. The drives they work on are claimed.
[[nodiscard]] MadeAction make_snapshot_action(MachineControl& machine, DriveClaims& claims,
                                              Arguments& arguments);
[[nodiscard]] MadeAction make_internal_snapshot_action(MachineControl& machine, DriveClaims& claims,
                                                       Arguments& arguments);
[[nodiscard]] MadeAction make_backup_action(MachineControl& machine, DriveClaims& claims,
                                            Arguments& arguments);
[[nodiscard]] MadeAction make_node_backup_action(MachineControl& machine, DriveClaims& claims,
                                                 Arguments& arguments);

// The commands. They run piece by piece, and the machine goes on in between.
/// The command that is one action alone.
[[nodiscard]] Task<Answer<Json>> run_action(MachineControl& machine, MakeAction make, Arguments arguments);
[[nodiscard]] Task<Answer<Json>> delete_internal_snapshot(MachineControl& machine, Arguments arguments);
/// Knows the actions blockdev-snapshot-sync, blockdev-snapshot-internal-sync, drive-backup, blockdev-backup,
/// block-dirty-bitmap-* and abort.
[[nodiscard]] Task<Answer<Json>> transaction(MachineControl& machine, Arguments arguments);

}  // namespace whistler::qmp
