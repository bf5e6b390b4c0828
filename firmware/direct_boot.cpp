#include "firmware/direct_boot.hpp"

#include "firmware/acpi.hpp"
#include "firmware/boot_image.hpp"
#include "firmware/byte_builder.hpp"
#include "firmware/smbios.hpp"
#include "firmware/table_loader.hpp"

namespace whistler {
namespace {

constexpr std::uint64_t kMinimumRam = 2 * kMib;
constexpr std::uint32_t kSmbiosAddress = kLowTables + 0x1000;

std::vector<E820Entry> memory_map(const MachineFacts& facts, std::uint64_t usable_end) {
  constexpr std::uint32_t kRam = 1;
  constexpr std::uint32_t kReserved = 2;
  constexpr std::uint32_t kAcpi = 3;
  std::vector<E820Entry> map = {
      {0, kLowMemoryEnd, kRam},
      {kLowMemoryEnd, 0xA0000 - kLowMemoryEnd, kReserved},
      {kLowTables, 0x10000, kReserved},
      {kMib, usable_end - kMib, kRam},
      {usable_end, facts.ram_below_4g - usable_end, facts.acpi ? kAcpi : kReserved},
      {0xFEFF'C000, 0x4000, kReserved},   // KVM's identity map and task state segment
      {0xFFFC'0000, 0x40000, kReserved},  // firmware flash
  };
  if (facts.ram_above_4g > 0) {
    map.push_back({std::uint64_t{1} << 32, facts.ram_above_4g, kRam});
  }
  return map;
}

/// ACPI, SMBIOS, the BIOS data area's two words about memory, and the segment descriptors.
Result<void> put_tables(const MachineFacts& facts, std::uint64_t usable_end, RamWriter& ram) {
  if (facts.acpi) {
    auto acpi = make_acpi_files(facts);
    const LoaderZones zones = {.high = {usable_end, kAcpiSpace}, .low = {kLowTables, 0x1000}};
    std::vector<LoaderFile> files;
    files.push_back({std::string(kAcpiTablesFile), std::move(acpi.tables)});
    files.push_back({std::string(kAcpiRsdpFile), std::move(acpi.rsdp)});
    if (auto done = run_table_loader(acpi.loader, std::move(files), zones, ram); !done) {
      return done;
    }
  }
  auto smbios = make_smbios_files(facts);
  constexpr std::uint32_t kStructures = kSmbiosAddress + 0x20;
  resolve_smbios_anchor(smbios.anchor, kStructures);
  if (auto done = put(ram, kSmbiosAddress, smbios.anchor, "SMBIOS entry point"); !done) {
    return done;
  }
  if (auto done = put(ram, kStructures, smbios.tables, "SMBIOS structures"); !done) {
    return done;
  }
  ByteBuilder data;  // 0x40E: segment of the extended BIOS data area; 0x413: KiB of memory below it
  data.add<std::uint16_t>(kLowMemoryEnd >> 4);
  data.add_zeros(3);
  data.add<std::uint16_t>(kLowMemoryEnd / 1024);
  if (auto done = put(ram, 0x40E, data.bytes, "BIOS data area"); !done) {
    return done;
  }
  ByteBuilder gdt;  // null, unused, code at 0x10, data at 0x18: the selectors Linux asks for
  gdt.add<std::uint64_t>(0);
  gdt.add<std::uint64_t>(0);
  gdt.add<std::uint64_t>(0x00CF'9B00'0000'FFFF);
  gdt.add<std::uint64_t>(0x00CF'9300'0000'FFFF);
  return put(ram, kGdtAddress, gdt.bytes, "segment descriptors");
}

}  // namespace

Result<void> put(RamWriter& ram, std::uint64_t address, std::span<const std::uint8_t> bytes,
                 std::string_view what) {
  if (!ram.write(address, bytes)) {
    return fail(ErrorCode::kInvalid, "no RAM at " + std::to_string(address) + " for " + std::string(what) +
                                         " of " + std::to_string(bytes.size()) + " bytes");
  }
  return {};
}

Result<void> put_command_line(RamWriter& ram, const std::string& line, std::uint64_t limit) {
  if (line.size() > limit || line.size() >= kCommandLineLimit) {
    return fail(ErrorCode::kInvalid, "kernel command line of " + std::to_string(line.size()) +
                                         " characters; this kernel takes " + std::to_string(limit));
  }
  std::vector<std::uint8_t> bytes(line.begin(), line.end());
  bytes.push_back(0);
  return put(ram, kCommandLineAddress, bytes, "the kernel command line");
}

std::unexpected<Error> refuse(const std::string& file, std::string_view reason, ErrorCode code) {
  return fail(code, file + ": " + std::string(reason));
}

Result<DirectBoot> prepare_direct_boot(const DirectBootFiles& files, const MachineFacts& facts,
                                       RamWriter& ram) {
  if (auto checked = check_facts(facts); !checked) {
    return std::unexpected(checked.error());
  }
  if (facts.ram_below_4g < kMinimumRam) {
    return fail(ErrorCode::kInvalid, "direct boot needs at least 2 MiB of RAM");
  }
  const bool linux_image = is_linux(files.kernel);
  if (!linux_image && !is_multiboot(files.kernel)) {
    return refuse(files.kernel_name, "neither a Linux bzImage nor a Multiboot 1 image",
                  ErrorCode::kUnsupported);
  }
  const std::uint64_t usable_end = align_down(facts.ram_below_4g, 0x10000) - kAcpiSpace;
  const BootTarget target = {facts, ram, usable_end, memory_map(facts, usable_end)};
  auto boot = linux_image ? load_linux(files, target) : load_multiboot(files, target);
  if (!boot) {
    return boot;
  }
  if (auto done = put_tables(facts, usable_end, ram); !done) {
    return std::unexpected(done.error());
  }
  boot->esp = kStackTop;
  boot->gdt_base = kGdtAddress;
  boot->gdt_limit = 0x1F;
  return boot;
}

}  // namespace whistler
