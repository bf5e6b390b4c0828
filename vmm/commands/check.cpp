// whistler check: says whether a description would start, without starting it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "vmm/commands/commands.hpp"
#include "vmm/commands/common.hpp"
#include "vmm/dry_build.hpp"
#include "vmm/exit_status.hpp"
#include "vmm/kvm/vm.hpp"

namespace whistler {
namespace {

struct CheckOptions {
  std::string file;
  std::vector<std::string> set;
};

void print_table(const Description& d) {
  const auto row = [](std::string_view name, std::string_view value) {
    fmt::print("  {:<10} {}\n", name, value);
  };
  fmt::print("{}: ok\n", d.source.string());
  row("name", d.name);
  row("memory", fmt::format("{} MiB", d.memory / kMiB));
  row("cpu", fmt::format("host-passthrough, {} core{}", d.cpu.cores, d.cpu.cores == 1 ? "" : "s"));
  for (const auto& drive : d.drives) {
    row(drive.id,
        fmt::format("IDE {}:{} {} {}", drive.bus, drive.unit,
                    drive.media == Media::kCdrom ? "CD-ROM" : "disk",
                    drive.file.empty() ? "(empty)" : fmt::format("{} ({})", drive.file, drive.format)));
  }
  if (d.vnc) {
    row("vnc", d.vnc->port < 0 ? d.vnc->listen + ", first free port"
                               : fmt::format("{}:{}", d.vnc->listen, d.vnc->port));
  }
  if (!d.boot.kernel.empty()) {
    row("kernel", d.boot.kernel);
  }
}

int check(const CheckOptions& options) {
  auto description = read_description(options.file, options.set);
  if (!description) {
    report(description.error().message);
    return kExitUsage;
  }
  if (auto possible = dry_build(*description); !possible) {
    report(possible.error().message);
    return kExitUsage;
  }
  if (auto kvm = Kvm::open(); !kvm) {
    report(kvm.error().message);
    return kExitHost;
  }
  print_table(*description);
  return 0;
}

}  // namespace

void add_check_command(CLI::App& app, int& status) {
  auto* command = app.add_subcommand(
      "check", "Check a description and all it names, and this host, without starting anything");
  auto options = std::make_shared<CheckOptions>();
  command->add_option("MACHINE.json", options->file, "The machine description")->required();
  command->add_option("--set", options->set, "Change one value first, as for run")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false);
  command->footer(
      "Exit status: 0 it would start; 2 the description or a file it names is wrong; 3 this host cannot run "
      "it.");
  command->callback([options, &status] { status = check(*options); });
}

}  // namespace whistler
