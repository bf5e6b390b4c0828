// Runs plans: one after the other or side by side.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "vmm/plan/plan.hpp"
#include "vmm/plan/result.hpp"
#include "vmm/plan/session.hpp"

namespace whistler::plan {

/// A line of progress, without its newline. Called by one thread at a time.
using Progress = std::function<void(const std::string& line)>;

/// Runs one plan from start to end. `folder` does not exist yet; it is created, and removed by its owner. The
/// calling thread must live as long as the machine, which is over when this returns. `interrupted` becomes
/// the number of a signal that ends it. `base`: the folder of the plan that this one goes on from, or empty.
[[nodiscard]] PlanResult run_plan(const Plan& plan, const std::string& folder, const std::string& base,
                                  const RunOptions& options, const std::atomic<int>& interrupted,
                                  const Progress& progress);

/// Runs them all, none before the one it goes on from has passed, at most `jobs` at a time, and no more than
/// the host has processors and memory for; one at least. The results are in the order of the plans.
[[nodiscard]] std::vector<PlanResult> run_plans(const std::vector<Plan>& plans, const std::string& folder,
                                                unsigned jobs, const RunOptions& options,
                                                const std::atomic<int>& interrupted,
                                                const Progress& progress);

}  // namespace whistler::plan
