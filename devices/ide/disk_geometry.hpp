// The geometry a BIOS is told for a disk whose description names none.
// Models: what QEMU does: the partition table of a disk that was used by cylinders, heads and sectors keeps
// them; every other disk has 16 heads and 63 sectors. No state.
#pragma once

#include <cstdint>
#include <span>

#include "devices/ide/drive_config.hpp"

namespace whistler {

struct DiskGeometry {
  IdeGeometry chs;
  BiosTranslation translation = BiosTranslation::kNone;
};

/// 16 heads and 63 sectors, with 2 to 16383 cylinders.
[[nodiscard]] IdeGeometry standard_geometry(std::uint64_t sectors);

/// How a BIOS presents a disk of this geometry when nobody says.
[[nodiscard]] BiosTranslation usual_translation(const IdeGeometry& chs);

/// `first_sector`: what sector 0 holds, from a guest and so anything; empty if it could not be read.
[[nodiscard]] DiskGeometry guess_geometry(std::uint64_t sectors, std::span<const std::uint8_t> first_sector);

}  // namespace whistler
