// What the img commands say of an error inside a longer sentence.
#pragma once

#include <string>

#include "base/result.hpp"

namespace whistler::tools {

/// The host's errno; where there was none, the one that stands for this kind of error.
[[nodiscard]] int errno_of(const Error& error);
/// The text of the host's errno; where there was none, of the one that stands for this kind of error.
[[nodiscard]] std::string reason_of(const Error& error);

}  // namespace whistler::tools
