// whistler test: boots machines and checks, by plans, that they do what they should.
#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>

#include "vmm/commands/commands.hpp"
#include "vmm/commands/common.hpp"
#include "vmm/exit_status.hpp"
#include "vmm/output_path.hpp"
#include "vmm/plan/artifacts.hpp"
#include "vmm/plan/reports.hpp"
#include "vmm/plan/runner.hpp"
#include "vmm/plan/tool.hpp"
#include "vmm/plan/work_folder.hpp"

namespace whistler {
namespace {

struct TestOptions {
  std::vector<std::string> files;
  std::vector<std::string> variables;
  unsigned jobs = 1;
  std::string junit, tap;
  plan::RunOptions run;
  bool check = false;
};

constexpr double kLargestScale = 1000;

std::atomic<int> interrupted = 0;

void on_signal(int number) { interrupted = number; }

Result<plan::Variables> read_variables(const std::vector<std::string>& arguments) {
  plan::Variables variables;
  for (const auto& argument : arguments) {
    const auto equals = argument.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(ErrorCode::kInvalid, fmt::format("--var {}: must be NAME=VALUE", argument));
    }
    variables[argument.substr(0, equals)] = argument.substr(equals + 1);
  }
  return variables;
}

/// All plans of all files; the first error.
Result<std::vector<plan::Plan>> load_all(const TestOptions& options) {
  const auto variables = read_variables(options.variables);
  if (!variables) {
    return std::unexpected(variables.error());
  }
  std::vector<plan::Plan> plans;
  std::map<std::string, std::string> folders;
  for (const auto& file : options.files) {
    auto some = plan::load_plans(file, *variables);
    if (!some) {
      return std::unexpected(some.error());
    }
    for (auto& one : *some) {
      const auto [same, is_new] = folders.emplace(plan::folder_name(one.name), one.name);
      if (!is_new) {
        return fail(ErrorCode::kInvalid,
                    fmt::format("{}: name: \"{}\" is too much like that of another plan, \"{}\"", file,
                                one.name, same->second));
      }
      plans.push_back(std::move(one));
    }
  }
  return plans;
}

/// Wrong places for reports are found before hours of tests.
Result<void> check_outputs(const TestOptions& options) {
  for (const auto& path : {options.junit, options.tap}) {
    if (!path.empty()) {
      if (auto possible = check_output_file(path); !possible) {
        return possible;
      }
    }
  }
  if (!options.run.artifacts.empty()) {
    std::error_code error;
    std::filesystem::create_directories(options.run.artifacts, error);
    if (error) {
      return fail(ErrorCode::kPermission, fmt::format("--artifacts {}: cannot be created: {}",
                                                      options.run.artifacts, error.message()));
    }
  }
  return {};
}

bool write_report(const std::string& path, const std::string& text) {
  if (path.empty()) {
    return true;
  }
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) {
    report(path + ": cannot be written");
  }
  return file.good();
}

void list(const std::vector<plan::Plan>& plans) {
  for (const auto& one : plans) {
    fmt::print("{}: {} steps, {} MiB, at most {:g} s\n", one_line(one.name), one.script->steps.size(),
               one.memory / kMiB, one.time_limit);
  }
}

int judge(const TestOptions& options, const std::vector<plan::PlanResult>& results) {
  int status = plan::exit_status(results);
  const bool written =
      write_report(options.junit, plan::junit(results)) && write_report(options.tap, plan::tap(results));
  if (!written && status == 0) {
    status = kExitHost;  // whoever reads the reports would see no tests
  }
  const auto passed = std::ranges::count(results, plan::Verdict::kPassed, &plan::PlanResult::verdict);
  fmt::print("{} passed, {} failed\n", passed, static_cast<std::ptrdiff_t>(results.size()) - passed);
  return interrupted != 0 ? kExitSignalled + interrupted : status;
}

int test(TestOptions options) {
  const auto plans = load_all(options);
  if (!plans) {
    report(plans.error().message);
    return kExitUsage;
  }
  if (options.check) {
    list(*plans);
    return 0;
  }
  if (auto possible = check_outputs(options); !possible) {
    report(possible.error().message);
    return kExitUsage;
  }
  for (const auto& one : *plans) {
    if (auto there = plan::check_tools(one); !there) {
      report(there.error().message);
      return kExitHost;
    }
  }
  if (!options.run.artifacts.empty()) {
    options.run.artifacts = std::filesystem::absolute(options.run.artifacts).string();
  }
  ::umask(077);
  const auto folder = plan::WorkFolder::create();
  if (!folder) {
    report(folder.error().message);
    return kExitHost;
  }
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action{};
    action.sa_handler = on_signal;
    ::sigaction(number, &action, nullptr);
  }
  const auto results = plan::run_plans(*plans, folder->path(), options.jobs, options.run, interrupted,
                                       [](const std::string& line) {
                                         fmt::print("{}\n", one_line(line));
                                         std::fflush(stdout);
                                       });
  return judge(options, results);
}

}  // namespace

void add_test_command(CLI::App& app, int& status) {
  auto* command =
      app.add_subcommand("test", "Boot machines and check by plans that they do what they should");
  auto options = std::make_shared<TestOptions>();
  command->add_option("PLAN.json", options->files, "Test plans; docs/plans.md says what is in one")
      ->required();
  command->add_option("--jobs", options->jobs, "Run so many machines at a time, if the host has room (1)")
      ->type_name("N")
      ->check(CLI::Range(1, 256));
  command->add_option("--junit", options->junit, "Write a report in JUnit's XML")->type_name("FILE");
  command->add_option("--tap", options->tap, "Write a report in TAP version 13")->type_name("FILE");
  command
      ->add_option("--artifacts", options->run.artifacts,
                   "Keep screens, lines, registers and disk checks of what fails, a folder a plan")
      ->type_name("DIR");
  command->add_option("--var", options->variables, "What ${NAME} in a plan stands for; may be repeated")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  command->add_option("--timeout-scale", options->run.scale, "Multiply all time limits, for a slow host (1)")
      ->type_name("FACTOR")
      ->check(CLI::Range(0.01, kLargestScale));
  command->add_flag("--check", options->check, "Only read the plans and the descriptions, and list them");
  command->footer(
      "Each machine runs in a private folder with overlays on its disks, no network port and a time limit "
      "for "
      "every\nstep; nothing of it is left however the tests end.\n\n"
      "Exit status: 0 every plan passed; 1 one failed; 2 a plan is wrong; 3 this host cannot run it; 124 a "
      "time "
      "limit was\nall that went wrong; 128+N stopped by signal N.\n\n"
      "Plans that copy folders to and from guests need the Debian packages xorriso, mtools and "
      "dosfstools;\nwait_ocr needs tesseract-ocr.\n\n"
      "Example: hello.json, run by `whistler test hello.json --artifacts out`:\n"
      "  { \"machine\": { \"memory\": \"64M\", \"drives\": [ { \"file\": \"hello.qcow2\", \"format\": "
      "\"qcow2\" } ] },\n"
      "    \"timeout\": 120,\n"
      "    \"steps\": [ { \"wait_screen\": \"login:\", \"timeout\": 60 },\n"
      "               { \"type\": \"root<enter><wait2>poweroff<enter>\" },\n"
      "               { \"wait_power_off\": true } ] }");
  command->callback([options, &status] { status = test(*options); });
}

}  // namespace whistler
