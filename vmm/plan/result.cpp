#include "vmm/plan/result.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "vmm/exit_status.hpp"

namespace whistler::plan {

std::string_view verdict_word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPassed: return "passed";
    case Verdict::kFailed: return "failed";
    case Verdict::kPlanWrong: return "plan wrong";
    case Verdict::kHostCannot: return "host cannot";
    case Verdict::kTimeLimit: return "time limit";
    case Verdict::kInterrupted: return "interrupted";
  }
  std::unreachable();
}

int exit_status(const std::vector<PlanResult>& results) {
  constexpr std::array kOrder = {std::pair(Verdict::kPlanWrong, kExitUsage),
                                 std::pair(Verdict::kHostCannot, kExitHost),
                                 std::pair(Verdict::kInterrupted, 1), std::pair(Verdict::kFailed, 1),
                                 std::pair(Verdict::kTimeLimit, kExitTimeout)};
  for (const auto& [verdict, status] : kOrder) {
    if (std::ranges::find(results, verdict, &PlanResult::verdict) != results.end()) {
      return status;
    }
  }
  return 0;
}

}  // namespace whistler::plan
