// Makes new images as `create`, `convert` and `dd` do, from the arguments of -o, -b and -F.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "block/node.hpp"
#include "tools/img/formats.hpp"
#include "tools/tool.hpp"

namespace whistler::tools {

struct NewTarget {
  std::string path;
  std::string format;
  std::optional<std::uint64_t> size = {};  ///< nothing: by option or backing file
  std::vector<std::string> options = {};   ///< the arguments of -o
  /// An option `size` is not looked at.
  bool size_is_given = false;
  std::optional<std::string> backing_file = {};
  std::optional<std::string> backing_format = {};
  /// Neither open the backing file nor look at it.
  bool unsafe_backing = false;
  /// Print the line "Formatting ...".
  bool announce = false;
  NodeFlags backing_flags = {};
};

/// Prints the options of -o for images of that format; `path`, if not empty, says what is below. The status.
int print_creation_help(const Call& call, const std::string& format, const std::string& path);
/// Whether images of that format can be made.
[[nodiscard]] bool is_creatable(const std::string& format);
/// Errors are in QEMU's words. An existing file is replaced.
[[nodiscard]] Result<void> create_target(Ring& ring, const NewTarget& target);
/// What opening the target takes beyond its name: the keys of -o, by the names of their secrets.
[[nodiscard]] Options target_keys(const NewTarget& target);
/// The options of -o, joined; all of a format's options with those of the file at `path`.
[[nodiscard]] Result<Options> read_target_options(const NewTarget& target, std::vector<OptionSpec>& specs);

}  // namespace whistler::tools
