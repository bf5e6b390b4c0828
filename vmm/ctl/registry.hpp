// Where running machines write down their monitors, so that people find them by name: one small file each in
// $XDG_RUNTIME_DIR/whistler or, without that, /run/whistler.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"

namespace whistler {

struct RunningMachine {
  std::string name;
  std::string description;  ///< the absolute path of its file
  std::string socket;       ///< the absolute path of its monitor
  int process = 0;
};

/// Written down as long as this lives. A folder that cannot be written is no reason not to run: then the
/// machine is not listed, and the log says why.
class Registration {
 public:
  explicit Registration(const RunningMachine& machine);
  ~Registration();
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

 private:
  std::string file_;
};

/// The machines whose process lives, by name; what others have left behind is removed. Foreign files are left
/// alone.
[[nodiscard]] std::vector<RunningMachine> running_machines();

/// The monitor's socket that `target` means: a socket, the file of a description, or a running machine's
/// name.
[[nodiscard]] Result<std::string> monitor_of(const std::string& target);

}  // namespace whistler
