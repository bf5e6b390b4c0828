// What the command line of convert asks for.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/img/opening.hpp"
#include "tools/img/wanted_snapshot.hpp"

namespace whistler::tools {

struct ConvertSettings {
  std::vector<std::string> sources;
  std::string source_format;
  bool image_opts = false;
  NodeFlags source_flags;
  ImageArgument target;
  NodeFlags target_flags;
  std::vector<std::string> options;
  std::optional<std::string> backing_file;  ///< by -B or -o
  std::optional<std::string> backing_format;
  bool backing_option = false;  ///< by -B
  std::optional<WantedSnapshot> snapshot;
  bool skip_create = false;
  bool compress = false;
  bool preallocated = false;
  bool progress = false;
  bool quiet = false;
  bool any_order = false;
  bool copy_offload = false;
  bool salvage = false;
  bool target_is_zero = false;
  bool bitmaps = false;
  bool skip_broken_bitmaps = false;
  unsigned workers = 8;
  std::uint64_t min_zero = 4096;
  std::uint64_t bytes_per_second = 0;
};

/// Fills `settings`; the exit status if there is nothing to do but to end.
[[nodiscard]] std::optional<int> read_convert_settings(const Call& call, ConvertSettings& settings);

}  // namespace whistler::tools
