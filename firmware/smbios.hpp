// SMBIOS 2.4 structures that name the machine. Windows and inventory tools read the UUID and the strings.
// Models: types 0, 1, 3, 4 (one a socket), 16, 17, 19, 32, 127.
// Documentation: DMTF DSP0134, System Management BIOS Reference Specification 2.4.
#pragma once

#include <cstdint>
#include <vector>

#include "firmware/facts.hpp"

namespace whistler {

struct SmbiosFiles {
  std::vector<std::uint8_t> anchor;  ///< "etc/smbios/smbios-anchor": entry point, address and checksums left to SeaBIOS
  std::vector<std::uint8_t> tables;  ///< "etc/smbios/smbios-tables"
};
[[nodiscard]] SmbiosFiles make_smbios_files(const MachineFacts& facts);

/// Completes an entry point for tables at `address`, for a machine without firmware.
void resolve_smbios_anchor(std::vector<std::uint8_t>& anchor, std::uint32_t address);

}  // namespace whistler
