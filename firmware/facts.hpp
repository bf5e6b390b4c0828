// What the firmware is told about a machine, as plain data: the common input of the tables in this folder.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace whistler {

/// One physical range of the memory map.
struct MemoryRange {
  std::uint64_t base = 0;
  std::uint64_t length = 0;
  bool operator==(const MemoryRange&) const = default;
};

/// The geometry the BIOS is to show for a disk, instead of the one it would work out.
struct DiskFacts {
  std::string boot_path;
  std::uint32_t cylinders = 0, heads = 0, sectors = 0;
  bool operator==(const DiskFacts&) const = default;
};

struct MachineFacts {
  std::string name = "Whistler";          ///< SMBIOS product name
  unsigned cpus = 1;                      ///< 1..8; APIC ids are 0..cpus-1
  std::uint64_t ram_below_4g = 0;         ///< bytes from address 0, at most 0xE0000000
  std::uint64_t ram_above_4g = 0;         ///< bytes from 4 GiB
  std::array<std::uint8_t, 16> uuid{};    ///< in the order it is printed
  std::vector<std::string> boot_devices;  ///< OpenFirmware paths, first one first: see boot_path.hpp
  std::vector<DiskFacts> disks;           ///< of those whose geometry is given
  bool boot_menu = false;
  std::int64_t boot_fail_wait_ms = -1;  ///< how long until a failed boot is tried again; -1: for ever
  unsigned boot_menu_wait_ms = 2500;    ///< how long the menu waits for a key; 0..65535
  bool acpi = true;
  bool apic = true;           ///< local APICs and I/O APIC; needed for more than one CPU
  unsigned serial_ports = 2;  ///< 0..2: COM1, COM2
  bool graphics = true;       ///< false sets QEMU's "nographic" item: SeaBIOS then talks to COM1
  bool operator==(const MachineFacts&) const = default;
};

}  // namespace whistler
