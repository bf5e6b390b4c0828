// The machine's ACPI 1.0 tables and the script by which SeaBIOS puts them into memory.
// Models: RSDP (revision 0), RSDT, FADT (116 bytes, revision 1), FACS, DSDT (dsdt.asl), MADT, one SSDT.
// Missing: sleep states S1 to S4, HPET, SRAT, PCI hot-plug, 64-bit PCI windows (Windows XP stops on them).
// Documentation: ACPI Specification 1.0b; QEMU, include/hw/acpi/bios-linker-loader (the script's commands).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "firmware/facts.hpp"
#include "firmware/ram_writer.hpp"

namespace whistler {

/// The three files SeaBIOS reads: "etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader".
struct AcpiFiles {
  std::vector<std::uint8_t> tables;
  std::vector<std::uint8_t> rsdp;
  std::vector<std::uint8_t> loader;
};
[[nodiscard]] AcpiFiles make_acpi_files(const MachineFacts& facts);

/// A blob the script can name.
struct LoaderFile {
  std::string name;
  std::vector<std::uint8_t> bytes;
};
/// Where resolved blobs may go. Both ranges are filled from their start.
struct LoaderZones {
  MemoryRange high;  ///< below 4 GiB, reported as reserved
  MemoryRange low;   ///< within 0xE0000..0xFFFFF, where the RSDP is looked for
};
/// Carries out a table loader script as SeaBIOS would, and writes the result: allocation, pointers, checksums. The
/// script may be hostile.
[[nodiscard]] Result<void> run_table_loader(const std::vector<std::uint8_t>& script, std::vector<LoaderFile> files,
                                            const LoaderZones& zones, RamWriter& ram);

}  // namespace whistler
