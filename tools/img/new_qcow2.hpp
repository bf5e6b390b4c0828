// Makes qcow2 and raw images from the options of `create -o`.
#pragma once

#include "tools/img/formats.hpp"

namespace whistler::tools {

[[nodiscard]] std::span<const OptionSpec> qcow2_create_options();
[[nodiscard]] std::span<const OptionSpec> qcow2_amend_options();
/// See ImageFormat::create.
[[nodiscard]] Result<void> create_raw(Ring& ring, const std::string& filename, const Options& values);
[[nodiscard]] Result<void> create_qcow2(Ring& ring, const std::string& filename, const Options& values);
/// See ImageFormat::create_on.
[[nodiscard]] Result<void> create_raw_on(Ring& ring, BlockDevice& place, const Options& values);
[[nodiscard]] Result<void> create_qcow2_on(Ring& ring, BlockDevice& place, const Options& values);

/// Whether "v2", "0.10" etc. name a version; its number.
[[nodiscard]] std::optional<unsigned> parse_qcow2_version(std::string_view text);
/// What `measure` needs of the options: QEMU's complaint if they do not go together.
[[nodiscard]] Result<void> check_qcow2_values(const Options& values);

}  // namespace whistler::tools
