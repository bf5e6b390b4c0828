// whistler run: starts a machine.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/log.hpp"
#include "base/service.hpp"
#include "vmm/commands/commands.hpp"
#include "vmm/commands/common.hpp"
#include "vmm/machine.hpp"
#include "vmm/qtest/qtest_machine.hpp"

namespace whistler {
namespace {

struct RunOptions {
  std::string file;
  std::vector<std::string> set;
  unsigned timeout = 0;
  std::string accel = "kvm";
  std::string qtest;
  std::vector<std::string> qmp;
  bool paused = false;
  bool verbose = false;
};

int run_kvm(Description description, const RunOptions& options, const std::vector<qmp::Address>& monitors) {
  auto machine = Machine::create(std::move(description), monitors);
  if (!machine) {
    report(machine.error().reason);
    return machine.error().status;
  }
  // A guest on standard output keeps it to itself.
  std::FILE* to = (*machine)->pc().uses_stdout() ? stderr : stdout;
  for (const auto& line : (*machine)->pc().notices()) {
    fmt::print(to, "{}\n", line);
  }
  std::fflush(to);
  const auto& notices = (*machine)->pc().notices();
  notify_service(fmt::format("READY=1\nSTATUS={}\n", fmt::join(notices, "; ")));
  const auto outcome = (*machine)->run(options.timeout, options.paused);
  notify_service("STOPPING=1\n");
  machine->reset();  // gives the terminal back before the last words
  if (outcome.status != kExitPoweredOff) {
    // The registers of a crash stand below the line that says what happened.
    const auto end = std::min(outcome.reason.find('\n'), outcome.reason.size());
    report(std::string_view(outcome.reason).substr(0, end));
    fmt::print(stderr, "{}{}", outcome.reason.substr(std::min(end + 1, outcome.reason.size())),
               end < outcome.reason.size() ? "\n" : "");
  }
  return outcome.status;
}

int run(const RunOptions& options) {
  if (options.verbose) {
    set_log_level(LogLevel::kDebug);
  }
  auto description = read_description(options.file, options.set);
  if (!description) {
    report(description.error().message);
    return kExitUsage;
  }
  std::vector<qmp::Address> monitors;
  for (const auto& text : options.qmp) {
    auto address = qmp::parse_address(text);
    if (!address) {
      report(address.error().message);
      return kExitUsage;
    }
    monitors.push_back(std::move(*address));
  }
  // Taken by signalfd on the main thread; every thread inherits the mask.
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGTERM);
  sigaddset(&mask, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  if (options.accel == "qtest") {
    const auto outcome = run_qtest(std::move(*description), options.qtest);
    if (outcome.status != 0) {
      report(outcome.reason);
    }
    return outcome.status;
  }
  return run_kvm(std::move(*description), options, monitors);
}

}  // namespace

void add_run_command(CLI::App& app, int& status) {
  auto* command = app.add_subcommand("run", "Start the machine that a description describes");
  auto options = std::make_shared<RunOptions>();
  command->add_option("MACHINE.json", options->file, "The machine description (examples are in configs/)")
      ->required();
  command
      ->add_option("--set", options->set,
                   "Change one value of the description: --set memory=512M --set drives.0.file=other.qcow2")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false);
  command->add_option("--timeout", options->timeout, "Stop after this many seconds, with status 124")
      ->type_name("SECONDS")
      ->check([](const std::string& text) { return text.empty() ? "must be a number of seconds" : ""; });
  command->add_option("--accel", options->accel, "kvm, or qtest: no CPUs, driven by a qtest client")
      ->check(CLI::IsMember({"kvm", "qtest"}));
  command
      ->add_option("--qtest", options->qtest,
                   "With --accel qtest: unix:PATH connects to the client, unix:PATH,server listens")
      ->type_name("unix:PATH[,server]");
  command
      ->add_option("--qmp", options->qmp,
                   "A monitor for QMP clients: unix:PATH,server listens, unix:PATH connects; may be repeated")
      ->type_name("unix:PATH[,server]")
      ->allow_extra_args(false);
  command->add_flag("-S,--paused", options->paused, "Run nothing before a QMP client says cont");
  command->add_flag("-v,--verbose", options->verbose, "Also tell what the guest does that is not modelled");
  command->footer(
      "Exit status: 0 the guest powered off; 2 arguments or description; 3 this host cannot run it; 4 the "
      "guest crashed;\n"
      "124 time limit; 128+N stopped by signal N before the guest powered off; a write of v to the debug "
      "exit port gives (v << 1) | 1.\n"
      "SIGTERM and Ctrl-C press the power button, and stop the machine after 30 seconds or at once when "
      "repeated.\n"
      "With a serial port on stdio, Ctrl-A x ends the program.\n\n"
      "Example: whistler run configs/demo.json --timeout 60");
  command->callback([options, &status] { status = run(*options); });
}

}  // namespace whistler
