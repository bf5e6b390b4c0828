#include "vmm/plan/reports.hpp"

#include <catch2/catch.hpp>

using namespace whistler::plan;

namespace {

std::vector<PlanResult> results() {
  PlanResult good{.name = "good", .source = "good.json", .seconds = 1.5};
  good.steps = {{.name = "the machine starts", .status = StepStatus::kPassed, .seconds = 0.5}};
  PlanResult bad{.name = "bad <&> #1",
                 .source = "bad.json",
                 .verdict = Verdict::kFailed,
                 .reason = "wait_serial \"x\": Linux has panicked: \x1b[1m<oops>\xFF",
                 .detail = "CPU 0\n  rax 1",
                 .seconds = 2};
  bad.steps = {{.name = "the machine starts", .status = StepStatus::kPassed},
               {.name = "wait_serial \"x\"", .status = StepStatus::kFailed, .reason = bad.reason},
               {.name = "later"}};
  const PlanResult never{.name = "never", .verdict = Verdict::kHostCannot, .reason = "no /dev/kvm"};
  return {good, bad, never};
}

}  // namespace

TEST_CASE("reports: JUnit counts steps, carries the reason and is sound XML") {
  const auto text = junit(results());
  CHECK_THAT(text,
             Catch::Contains("<testsuites name=\"whistler test\" tests=\"5\" failures=\"1\" errors=\"1\""));
  CHECK_THAT(text, Catch::Contains("classname=\"bad &lt;&amp;&gt; #1\""));
  CHECK_THAT(text, Catch::Contains("<failure type=\"failed\" message=\"wait_serial &quot;x&quot;: Linux has "
                                   "panicked: \\x1b[1m&lt;oops&gt;"));
  CHECK_THAT(text, Catch::Contains("rax 1"));
  CHECK_THAT(text, Catch::Contains("name=\"3 later\" time=\"0.000\"><skipped/>"));
  CHECK_THAT(text, Catch::Contains("<error type=\"host cannot\" message=\"no /dev/kvm\""));
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(text.find('\xFF') == std::string::npos);
}

TEST_CASE("reports: TAP has a line a plan and the reason in YAML") {
  const auto text = tap(results());
  CHECK_THAT(text, Catch::StartsWith("TAP version 13\n1..3\nok 1 - good\nnot ok 2 - bad <&> _1\n  ---\n"));
  CHECK_THAT(text,
             Catch::Contains("  message: \"wait_serial \\\"x\\\": Linux has panicked: \\u001b[1m<oops>"));
  CHECK_THAT(text, Catch::Contains("    - name: \"later\"\n      status: not run\n"));
  CHECK_THAT(text, Catch::Contains("not ok 3 - never\n"));
  CHECK_THAT(text, Catch::EndsWith("  ...\n"));
}

TEST_CASE("reports: the exit status of all plans") {
  const auto status = [](std::initializer_list<Verdict> verdicts) {
    std::vector<PlanResult> all;
    for (const auto verdict : verdicts) {
      all.push_back({.name = "x", .verdict = verdict});
    }
    return exit_status(all);
  };
  CHECK(status({Verdict::kPassed, Verdict::kPassed}) == 0);
  CHECK(status({Verdict::kPassed, Verdict::kTimeLimit}) == 124);
  CHECK(status({Verdict::kTimeLimit, Verdict::kFailed}) == 1);
  CHECK(status({Verdict::kFailed, Verdict::kHostCannot}) == 3);
  CHECK(status({Verdict::kHostCannot, Verdict::kPlanWrong}) == 2);
}
