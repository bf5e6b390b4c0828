// Makes VDI and VHD images from the options of `create -o`.
#pragma once

#include "tools/img/formats.hpp"

namespace whistler::tools {

[[nodiscard]] std::span<const OptionSpec> vdi_create_options();
[[nodiscard]] std::span<const OptionSpec> vpc_create_options();
/// See ImageFormat::create.
[[nodiscard]] Result<void> create_vdi(Ring& ring, const std::string& filename, const Options& values);
[[nodiscard]] Result<void> create_vpc(Ring& ring, const std::string& filename, const Options& values);

}  // namespace whistler::tools
