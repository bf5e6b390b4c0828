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
/// QEMU's complaint about the options that `measure` looks at; it takes no notice of the others.
[[nodiscard]] Result<void> check_measured_values(const Options& values);
/// Whether an image made with them can be as large.
[[nodiscard]] Result<void> check_measured_size(const Options& values, std::uint64_t size);

}  // namespace whistler::tools
