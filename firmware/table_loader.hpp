// Writes the scripts by which SeaBIOS places tables in memory; run_table_loader() in acpi.hpp carries one
// out. Documentation: QEMU, hw/acpi/bios-linker-loader.c (commands of 128 bytes).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace whistler {

inline constexpr std::string_view kAcpiTablesFile = "etc/acpi/tables";
inline constexpr std::string_view kAcpiRsdpFile = "etc/acpi/rsdp";
inline constexpr std::string_view kTableLoaderFile = "etc/table-loader";

class LoaderScript {
 public:
  enum class Zone : std::uint8_t { kHigh = 1, kLow = 2 };

  /// File names have at most 55 characters.
  void allocate(std::string_view file, std::uint32_t alignment, Zone zone);
  /// Adds the address of `target` to the `size`-byte integer at `offset` of `file`.
  void pointer(std::string_view file, std::uint32_t offset, std::string_view target, unsigned size);
  /// Makes bytes [start, start + length) of `file` sum to zero by the byte at `offset`.
  void checksum(std::string_view file, std::uint32_t offset, std::uint32_t start, std::uint32_t length);
  [[nodiscard]] std::vector<std::uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<std::uint8_t> bytes_;
};

}  // namespace whistler
