// What is kept of a plan that did not pass.
#pragma once

#include <string>

#include "base/result.hpp"
#include "vmm/plan/plan.hpp"
#include "vmm/plan/result.hpp"
#include "vmm/plan/session.hpp"
#include "vmm/plan/tool.hpp"

namespace whistler::plan {

/// `name` as the name of a folder: letters, digits, '.', '-' and '_'.
[[nodiscard]] std::string folder_name(std::string_view name);

/// Where a plan's artifacts go, of which `options` know the folder; empty if none are kept.
[[nodiscard]] std::string artifacts_folder(const RunOptions& options, const Plan& plan);
/// Where the files taken out of a disk go in such a folder.
[[nodiscard]] std::string files_folder(const std::string& artifacts, const std::string& drive);

/// The plan as it was read, with "<<< FAILED: reason" at the step that failed; step 0 is the start, the last
/// one the end.
[[nodiscard]] std::string marked_plan(const Plan& plan, const PlanResult& result);

/// Asks a machine that still runs for its registers and a last picture. Empty registers if it cannot say.
[[nodiscard]] std::string last_look(GuestProcess& guest);

/// Writes everything into `to`, which is created, after the machine has ended. `session` may be null. `await`
/// is for programs that take files out of disks.
[[nodiscard]] Result<void> write_artifacts(const std::string& to, const Plan& plan, const PlanResult& result,
                                           GuestProcess& guest, const Session* session, const Await& await);

/// What `whistler img check` says of a disk: empty if it is whole.
[[nodiscard]] std::string check_disk(const Overlay& overlay, const std::string& folder);

}  // namespace whistler::plan
