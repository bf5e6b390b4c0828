// A QEMU command line as a machine. Source: QEMU's manual, "Invocation".
#pragma once

#include <string>
#include <vector>

#include "vmm/import/imported_machine.hpp"

namespace whistler {

/// One word of a command line.
struct QemuWord {
  std::string text;
  std::string where = {};  ///< its place for notes, where that is more than the option's name
};

/// The whole command, the program's name first, with what QEMU adds unasked. What cannot come along is noted,
/// what is wrong is the report's error.
[[nodiscard]] ImportedMachine import_qemu_command_line(const std::vector<std::string>& words,
                                                       ImportReport& report);

/// Options that somebody added to a machine that is described otherwise.
void add_qemu_options(const std::vector<QemuWord>& words, ImportedMachine& machine, ImportReport& report);

}  // namespace whistler
