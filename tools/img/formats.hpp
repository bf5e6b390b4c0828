// The formats that images can be made in, and the options of `create -o`. Who adds a format puts a line into
// formats.cpp.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/block_device.hpp"
#include "block/node_options.hpp"
#include "block/uring/ring.hpp"

namespace whistler::tools {

enum class OptionType : std::uint8_t { kText, kSize, kFlag, kNumber };

struct OptionSpec {
  std::string_view name;
  OptionType type = OptionType::kText;
  std::string_view standard = {};  ///< the value shown where none was given; "": none is shown
  std::string_view help = {};
};

struct ImageFormat {
  std::string_view name;
  /// In the order in which "Formatting" shows them.
  std::span<const OptionSpec> options;
  /// Makes the image. `values`: of the options that were given, by their flat names ("encrypt.format"): text,
  /// numbers for sizes and numbers, booleans for flags; "size" is there. Errors are in QEMU's words.
  Result<void> (*create)(Ring& ring, const std::string& filename, const Options& values) = nullptr;
  /// Options of `amend`; empty: cannot be amended.
  std::span<const OptionSpec> amend_options = {};
  /// Makes the image on what is there already and stays as large as it is. Null: the format can't be made so.
  Result<void> (*create_on)(Ring& ring, BlockDevice& place, const Options& values) = nullptr;
};

/// Null if no such format can be made.
[[nodiscard]] const ImageFormat* find_image_format(std::string_view name);
/// What the file below adds to a format's own options.
[[nodiscard]] std::span<const OptionSpec> file_options();
/// The format's options and, if `with_file`, those of the file that the format does not have.
[[nodiscard]] std::vector<OptionSpec> all_options(const ImageFormat& format, bool with_file);

struct GivenOption {
  std::string name;
  std::string value;
};
/// "a=b,c=d,,e": as given, later ones last.
[[nodiscard]] std::vector<GivenOption> split_option_list(std::string_view text);
/// Whether "help" or "?" is one of the parts.
[[nodiscard]] bool asks_for_help(std::string_view text);
/// QEMU's test of what -o may take: no empty part at the beginning or the end.
[[nodiscard]] bool is_option_list(std::string_view text);
/// The values of the options by their types; QEMU's complaint about a name or value that is none.
[[nodiscard]] Result<Options> read_values(const std::vector<OptionSpec>& specs,
                                          const std::vector<GivenOption>& given);
/// The lines of `-o help`, sorted.
void print_option_help(const std::vector<OptionSpec>& specs);
/// " name=value" for every option that was given or has a standard value.
[[nodiscard]] std::string show_values(const std::vector<OptionSpec>& specs, const Options& values);

}  // namespace whistler::tools
