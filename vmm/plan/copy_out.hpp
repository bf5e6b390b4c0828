// Takes files out of a disk that was made from a folder, when the guest has done with it.
//
// The disk is the guest's: it may hold anything. The file system is checked before a file is taken out of it,
// and what came out is looked through before it is used.
#pragma once

#include <string>

#include "vmm/plan/guest_process.hpp"
#include "vmm/plan/plan.hpp"
#include "vmm/plan/result.hpp"
#include "vmm/plan/tool.hpp"

namespace whistler::plan {

/// What becomes of a file system that is not whole.
enum class Damage : std::uint8_t {
  kFails,    ///< nothing is taken out of it
  kRepaired  ///< in a copy: of a guest that was stopped in the middle of its work
};

/// Puts the files of the first partition of `disk`, whose machine has ended, into the folder `to`, which is
/// made anew. `work` is a folder for what lies about in between. If it fails, there is no folder `to`.
[[nodiscard]] Done take_files(const Overlay& disk, const std::string& to, Damage damage,
                              const std::string& work, const Await& await);

/// Whether the file `name` in the folder `files` is there and its text has `pattern` in it. The case of names
/// does not matter, as on the disk; folders are set apart by '/'.
[[nodiscard]] Done check_file(const std::string& files, const std::string& name, const Pattern& pattern);

}  // namespace whistler::plan
