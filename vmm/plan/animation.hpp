// Pictures one after the other in one file.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "vmm/plan/picture.hpp"

namespace whistler::plan {

/// Such a file, of the kind APNG: half a second for each, longer for the last, and from the start again. It
/// is as large as the largest; smaller ones stand in its upper left corner. Programs that know only PNG show
/// the first. `frames` is not empty.
[[nodiscard]] Result<std::vector<std::uint8_t>> animated_png(std::span<const Picture> frames);

}  // namespace whistler::plan
