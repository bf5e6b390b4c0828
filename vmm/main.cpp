// The program: sub-commands by name.
#include <CLI/CLI.hpp>
#include <iostream>

#include "vmm/commands/commands.hpp"
#include "vmm/commands/common.hpp"
#include "vmm/exit_status.hpp"

int main(int argc, char** argv) {
  CLI::App app{"Whistler runs Windows-XP-era PCs on KVM: a machine is one JSON file.", "whistler"};
  app.set_version_flag("--version", std::string("whistler ") + WHISTLER_VERSION);
  app.require_subcommand(1);
  app.footer(
      "`whistler COMMAND --help` tells more about a command.\n\nStart: whistler run configs/demo.json");
  app.get_formatter()->column_width(34);
  int status = 0;
  whistler::add_run_command(app, status);
  whistler::add_check_command(app, status);
  whistler::add_version_command(app, status);
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
