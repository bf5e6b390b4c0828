// Everything a PC's firmware finds in fw_cfg.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "firmware/facts.hpp"

namespace whistler {

/// One entry for fw_cfg: a file when `name` is not empty, else an item under the number `key`.
struct FirmwareItem {
  std::uint16_t key = 0;
  std::string name;
  std::vector<std::uint8_t> bytes;
  bool writable = false;
};

/// The items of a machine that boots by SeaBIOS: memory map, CPUs, boot order, SMBIOS and, when facts.acpi,
/// the ACPI tables with their loader script. kInvalid names the fact that is out of range.
[[nodiscard]] Result<std::vector<FirmwareItem>> make_firmware_items(const MachineFacts& facts);

/// kInvalid names the fact that is out of range.
[[nodiscard]] Result<void> check_facts(const MachineFacts& facts);

/// The file "bootorder": lines with a zero at the end, as SeaBIOS reads them; nothing for no lines.
[[nodiscard]] std::vector<std::uint8_t> encode_boot_order(const std::vector<std::string>& lines);

/// A row of the memory map given to an operating system.
struct E820Entry {
  std::uint64_t base = 0;
  std::uint64_t length = 0;
  std::uint32_t type = 1;  ///< 1 RAM, 2 reserved, 3 ACPI reclaimable, 4 ACPI NVS
  bool operator==(const E820Entry&) const = default;
};
/// The file "etc/e820": 20 bytes a row, as SeaBIOS reads it.
[[nodiscard]] std::vector<std::uint8_t> encode_e820(const std::vector<E820Entry>& map);

}  // namespace whistler
