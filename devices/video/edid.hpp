// What the monitor says about itself (EDID).
// Models: one base block of EDID 1.4: identity, sRGB-like chromaticity, established and standard timings, a
// preferred detailed timing, range limits and a name. Missing: extension blocks; DDC (the guest reads the
// block from BAR2 of the adapter). Documentation: VESA Enhanced EDID Standard, release A revision 2; timings
// by VESA CVT 1.1 reduced blanking.
#pragma once

#include <array>
#include <cstdint>

namespace whistler {

/// A base block whose preferred mode is `width` x `height` (8..4088 each; cut to that) at 60 Hz.
[[nodiscard]] std::array<std::uint8_t, 128> make_edid(unsigned width, unsigned height);

}  // namespace whistler
