// Reports for continuous integration: JUnit's XML and TAP version 13.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vmm/plan/result.hpp"

namespace whistler::plan {

/// A test suite for each plan, a test case for each step. A step that did not run counts as skipped; a plan
/// that could not begin as an error.
[[nodiscard]] std::string junit(const std::vector<PlanResult>& results);

/// A test for each plan, with the reason and the steps in YAML below one that did not pass.
[[nodiscard]] std::string tap(const std::vector<PlanResult>& results);

}  // namespace whistler::plan
