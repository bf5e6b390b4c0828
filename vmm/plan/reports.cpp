#include "vmm/plan/reports.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace whistler::plan {
namespace {

/// Bytes that are no UTF-8 are replaced.
std::string sound_utf8(std::string_view text) {
  using Json = nlohmann::json;
  const auto quoted = Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace);
  return Json::parse(quoted).get<std::string>();
}

/// Text and attribute values of XML 1.0, which has no way to say most control characters.
std::string xml(std::string_view text) {
  std::string result;
  for (const char c : sound_utf8(text)) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      case '\n': result += "&#10;"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 && c != '\t') {
          result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        } else {
          result += c;
        }
    }
  }
  return result;
}

/// A double-quoted YAML scalar: JSON's strings are.
std::string yaml(std::string_view text) {
  using Json = nlohmann::json;
  return Json(std::string(text)).dump(-1, ' ', true, Json::error_handler_t::replace);
}

bool is_error(Verdict verdict) { return verdict == Verdict::kPlanWrong || verdict == Verdict::kHostCannot; }

std::string test_case(const PlanResult& plan, const StepResult& step, std::size_t number) {
  auto text = fmt::format("    <testcase classname=\"{}\" name=\"{} {}\" time=\"{:.3f}\"", xml(plan.name),
                          number, xml(step.name), step.seconds);
  switch (step.status) {
    case StepStatus::kPassed: return text + "/>\n";
    case StepStatus::kNotRun: return text + "><skipped/></testcase>\n";
    case StepStatus::kFailed: break;
  }
  const auto* tag = is_error(plan.verdict) ? "error" : "failure";
  return text + fmt::format(">\n      <{0} type=\"{1}\" message=\"{2}\">{3}</{0}>\n    </testcase>\n", tag,
                            verdict_word(plan.verdict), xml(step.reason),
                            xml(step.reason + "\n" + plan.detail));
}

}  // namespace

std::string junit(const std::vector<PlanResult>& results) {
  std::string suites;
  std::size_t tests = 0;
  std::size_t failures = 0;
  std::size_t errors = 0;
  double seconds = 0;
  for (const auto& plan : results) {
    // A plan without steps was never begun; it still has to count.
    auto steps = plan.steps;
    if (steps.empty()) {
      const bool passed = plan.verdict == Verdict::kPassed;
      steps.push_back({.name = "the machine starts",
                       .status = passed ? StepStatus::kPassed : StepStatus::kFailed,
                       .seconds = 0,
                       .reason = plan.reason});
    }
    const auto failed =
        static_cast<std::size_t>(std::ranges::count(steps, StepStatus::kFailed, &StepResult::status));
    const auto skipped = std::ranges::count(steps, StepStatus::kNotRun, &StepResult::status);
    const bool error = is_error(plan.verdict);
    suites += fmt::format(
        "  <testsuite name=\"{}\" file=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" "
        "skipped=\"{}\" time=\"{:.3f}\">\n",
        xml(plan.name), xml(plan.source), steps.size(), error ? 0 : failed, error ? failed : 0, skipped,
        plan.seconds);
    std::size_t number = 0;
    for (const auto& step : steps) {
      suites += test_case(plan, step, ++number);
    }
    suites += "  </testsuite>\n";
    tests += steps.size();
    (error ? errors : failures) += failed;
    seconds += plan.seconds;
  }
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"whistler test\" tests=\"{}\" "
      "failures=\"{}\" errors=\"{}\" time=\"{:.3f}\">\n{}</testsuites>\n",
      tests, failures, errors, seconds, suites);
}

std::string tap(const std::vector<PlanResult>& results) {
  auto text = fmt::format("TAP version 13\n1..{}\n", results.size());
  std::size_t number = 0;
  for (const auto& plan : results) {
    std::string name;
    for (const char c : sound_utf8(plan.name)) {
      // '#' begins a directive.
      name += c == '#' || static_cast<unsigned char>(c) < 0x20 ? '_' : c;
    }
    const bool passed = plan.verdict == Verdict::kPassed;
    text += fmt::format("{} {} - {}\n", passed ? "ok" : "not ok", ++number, name);
    if (passed) {
      continue;
    }
    text += fmt::format("  ---\n  message: {}\n  severity: {}\n  file: {}\n  seconds: {:.1f}\n",
                        yaml(plan.reason), yaml(verdict_word(plan.verdict)), yaml(plan.source), plan.seconds);
    if (!plan.steps.empty()) {
      text += "  steps:\n";
    }
    for (const auto& step : plan.steps) {
      const auto* status = step.status == StepStatus::kPassed   ? "passed"
                           : step.status == StepStatus::kFailed ? "failed"
                                                                : "not run";
      text += fmt::format("    - name: {}\n      status: {}\n      seconds: {:.1f}\n", yaml(step.name),
                          status, step.seconds);
    }
    if (!plan.detail.empty()) {
      text += fmt::format("  detail: {}\n", yaml(plan.detail));
    }
    text += "  ...\n";
  }
  return text;
}

}  // namespace whistler::plan
