// What the commands that start jobs, or change a drive's images otherwise, have in common.
#pragma once

#include <string>

#include "block/jobs/backup.hpp"
#include "block/jobs/block_job.hpp"
#include "block/jobs/layers.hpp"
#include "vmm/drive_claims.hpp"
#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

/// The arguments that every job has: job-id, speed, auto-finalize, auto-dismiss.
[[nodiscard]] JobSettings take_job_settings(Arguments& arguments);
[[nodiscard]] OnJobError take_error_policy(Arguments& arguments, const std::string& key);

/// "sync", which must be given.
[[nodiscard]] CopySync take_copy_sync(Arguments& arguments);

/// A drive with a medium that a job, or something else nobody may disturb, can be started on: it is claimed.
/// Under the machine lock.
[[nodiscard]] Answer<Drive*> idle_drive(MachineControl& machine, DriveClaims& claims,
                                        const std::string& device, const std::string& node = {});
/// Claims the drive; refuses, in QEMU's words, if a job or another command works on it. Under the machine
/// lock.
[[nodiscard]] Answer<void> claim_idle(MachineControl& machine, DriveClaims& claims, Drive& drive);
/// Fills in what was not given, and claims the id; refuses one that cannot be. Under the machine lock.
[[nodiscard]] Answer<void> settle_job(DriveClaims& claims, const Drive& drive, JobSettings& settings);

/// QEMU's words for a file that could not be made; if `stop` was asked for, that is why.
[[nodiscard]] std::unexpected<Refusal> could_not_create(const Error& error, const Stop& stop);

/// The images of the drive, from the top down. Under the machine lock.
[[nodiscard]] std::vector<Layer> layers_of(Drive& drive);
/// The name by which clients know a layer of a drive: that of the top one is the drive's own.
[[nodiscard]] std::string node_name(const Drive& drive, std::size_t depth);

}  // namespace whistler::qmp
