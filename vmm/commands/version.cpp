// whistler version.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "vmm/commands/commands.hpp"

namespace whistler {

void add_version_command(CLI::App& app, int& status) {
  app.add_subcommand("version", "Print the version")->callback([&status] {
    fmt::print("whistler {}\n", WHISTLER_VERSION);
    status = 0;
  });
}

}  // namespace whistler
