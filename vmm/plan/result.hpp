// What came of a plan.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

namespace whistler::plan {

enum class Verdict : std::uint8_t {
  kPassed,
  kFailed,       ///< the guest did not do what the plan says
  kPlanWrong,    ///< the plan, the description or a file they name is wrong
  kHostCannot,   ///< this host cannot run it
  kTimeLimit,    ///< what was waited for did not come in time
  kInterrupted,  ///< by a signal to the runner
};

/// Why something did not work: for a person, in one line.
struct Failure {
  Verdict verdict = Verdict::kFailed;
  std::string reason = {};
};

using Done = std::expected<void, Failure>;

enum class StepStatus : std::uint8_t { kPassed, kFailed, kNotRun };

struct StepResult {
  std::string name = {};
  StepStatus status = StepStatus::kNotRun;
  double seconds = 0;
  std::string reason = {};  ///< if it failed
};

struct PlanResult {
  std::string name = {};
  std::string source = {};  ///< the plan's file
  Verdict verdict = Verdict::kPassed;
  std::string reason = {};  ///< one line; empty if it passed
  std::string detail = {};  ///< more lines: what the guest said last, registers
  double seconds = 0;
  std::vector<StepResult> steps = {};  ///< the start, the plan's steps, the end
};

/// The word reports use: "passed", "failed", "plan wrong", "host cannot", "time limit", "interrupted".
[[nodiscard]] std::string_view verdict_word(Verdict verdict);

/// The exit status of all of them together: 2 before 3, before 1, before 124; 0 if every one passed.
[[nodiscard]] int exit_status(const std::vector<PlanResult>& results);

}  // namespace whistler::plan
