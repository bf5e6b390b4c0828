// Pictures of the screen, for screendump and for tests that failed.
#pragma once

#include <string>

#include "base/result.hpp"
#include "devices/core/display.hpp"

namespace whistler {

enum class PictureFormat : std::uint8_t { kPpm, kPng };

/// Writes `surface` to the file `path`, replacing what is there. The caller brings the surface up to date and
/// keeps it still.
[[nodiscard]] Result<void> write_picture(const Surface& surface, const std::string& path,
                                         PictureFormat format);

}  // namespace whistler
