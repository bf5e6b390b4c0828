// The sub-commands of `whistler`. Each adds itself to the command line and leaves its exit status in
// `status`.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace whistler {

void add_run_command(CLI::App& app, int& status);
void add_check_command(CLI::App& app, int& status);
void add_ctl_command(CLI::App& app, int& status);
void add_import_command(CLI::App& app, int& status);
void add_test_command(CLI::App& app, int& status);
void add_version_command(CLI::App& app, int& status);

/// Prints what the last of `words` may become, a line each, for the completion of shells; the words before it
/// are those of a command line without its program. Returns the exit status.
[[nodiscard]] int complete(const std::vector<std::string>& words);

}  // namespace whistler
