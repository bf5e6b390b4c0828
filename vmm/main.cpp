// The program: sub-commands by name.
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string_view>

#include "tools/tool.hpp"
#include "vmm/commands/commands.hpp"
#include "vmm/commands/common.hpp"
#include "vmm/exit_status.hpp"

namespace {
/// Requests to disks take and free blocks of up to some MiB all the time. By glibc's own thresholds each may
/// go back to the kernel at once, which costs system calls, page faults and interrupts to the other
/// processors that run threads of this process: 6% of the time of copy-on-write. Both in bytes.
void keep_freed_memory() {
  ::mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
  ::mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024);
}
}  // namespace

int main(int argc, char** argv) {
  keep_freed_memory();
  // The block tools read their arguments as qemu-img and its kin do.
  if (const auto status = whistler::tools::run_tool(argc, argv)) {
    return *status;
  }
  if (argc > 1 && std::string_view(argv[1]) == "complete") {
    return whistler::complete({argv + 2, argv + argc});
  }
  CLI::App app{"Whistler runs Windows-XP-era PCs on KVM: a machine is one JSON file.", "whistler"};
  app.set_version_flag("--version", std::string("whistler ") + WHISTLER_VERSION);
  app.require_subcommand(1);
  app.footer(
      "`whistler COMMAND --help` tells more about a command.\n\nStart: whistler run configs/demo.json");
  app.get_formatter()->column_width(34);
  int status = 0;
  whistler::add_run_command(app, status);
  whistler::add_check_command(app, status);
  whistler::add_ctl_command(app, status);
  whistler::add_import_command(app, status);
  whistler::add_test_command(app, status);
  whistler::add_version_command(app, status);
  app.add_subcommand("img", "Make, inspect, check, convert and change disk images, as qemu-img does");
  app.add_subcommand("io", "Read and write disk images by hand, as qemu-io does");
  app.add_subcommand("nbd", "Serve disk images over NBD, as qemu-nbd does");
  app.add_subcommand("help", "Print this help")->callback([&app] { std::cout << app.help(); });
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    const bool unknown = app.get_subcommands().empty() && argc > 1 && argv[1][0] != '-';
    whistler::report((unknown ? std::string(argv[1]) + ": is not a command" : std::string(error.what())) +
                     "; see whistler --help");
    return whistler::kExitUsage;
  }
  return status;
}
