// QMP's commands for jobs that run, in both of their forms (block-job-*, job-*), and their events.
#pragma once

#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

[[nodiscard]] Json query_block_jobs(MachineControl& machine);
[[nodiscard]] Json query_jobs(MachineControl& machine);

[[nodiscard]] Answer<Json> block_job_cancel(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> block_job_pause(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> block_job_resume(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> block_job_complete(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> block_job_finalize(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> block_job_dismiss(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> block_job_set_speed(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> job_cancel(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> job_pause(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> job_resume(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> job_complete(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> job_finalize(MachineControl& machine, Arguments& arguments);
[[nodiscard]] Answer<Json> job_dismiss(MachineControl& machine, Arguments& arguments);

/// From now on clients are told of what happens to jobs. Under the machine lock.
void watch_jobs(MachineControl& machine);

}  // namespace whistler::qmp
