// The sub-commands of `whistler`. Each adds itself to the command line and leaves its exit status in
// `status`.
#pragma once

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

}  // namespace whistler
