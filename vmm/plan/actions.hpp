// What the steps of a plan do.
#pragma once

#include "vmm/plan/plan.hpp"
#include "vmm/plan/session.hpp"

namespace whistler::plan {

/// Does one step, which is one of `plan.steps`, and waits for its end. The thread of `session`.
[[nodiscard]] Done perform(Session& session, const Plan& plan, const Step& step);

}  // namespace whistler::plan
