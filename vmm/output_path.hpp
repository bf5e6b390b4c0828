// Paths the machine will write to: wrong ones are found before anything is created.
#pragma once

#include <string>

#include "base/result.hpp"

namespace whistler {

/// Whether `path` can be created or emptied. Errors: a folder, no permission, no such folder, an image that
/// some machine has open (its locks tell). Changes nothing.
[[nodiscard]] Result<void> check_output_file(const std::string& path);

/// Whether something can be created at `path`.
[[nodiscard]] Result<void> check_parent_folder(const std::string& path);

/// Whether both name one existing file.
[[nodiscard]] bool same_file(const std::string& a, const std::string& b);

}  // namespace whistler
