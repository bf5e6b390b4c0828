// Checks of formats of other parts. Who adds one puts a line into check_formats.cpp.
#pragma once

#include "block/node.hpp"
#include "block/qcow2/check.hpp"

namespace whistler::tools {

/// kUnsupported where the format has no checks. Prints a line for each error to standard error.
[[nodiscard]] Result<qcow2::CheckReport> check_other_format(Ring& ring, const OpenNode& image,
                                                            qcow2::Repair repair);

}  // namespace whistler::tools
