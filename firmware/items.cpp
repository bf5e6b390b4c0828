#include "firmware/items.hpp"

#include <string_view>

#include <fmt/format.h>

#include "firmware/acpi.hpp"
#include "firmware/byte_builder.hpp"
#include "firmware/smbios.hpp"
#include "firmware/table_loader.hpp"

namespace whistler {
namespace {

// Numbered items (QEMU, include/standard-headers/linux/qemu_fw_cfg.h and hw/i386/fw_cfg.h).
constexpr std::uint16_t kUuid = 0x02;
constexpr std::uint16_t kRamSize = 0x03;
constexpr std::uint16_t kNoGraphic = 0x04;
constexpr std::uint16_t kNbCpus = 0x05;
constexpr std::uint16_t kNuma = 0x0D;
constexpr std::uint16_t kBootMenu = 0x0E;
constexpr std::uint16_t kMaxCpus = 0x0F;
constexpr std::uint16_t kIrq0Override = 0x8002;

constexpr std::uint64_t kFourGib = std::uint64_t{1} << 32;

template <std::unsigned_integral T>
std::vector<std::uint8_t> number(std::type_identity_t<T> value) {
  ByteBuilder out;
  out.add<T>(value);
  return std::move(out.bytes);
}

std::vector<std::string> geometry_lines(const std::vector<DiskFacts>& disks) {
  std::vector<std::string> lines;
  for (const auto& disk : disks) {
    if (disk.cylinders != 0 || disk.heads != 0 || disk.sectors != 0) {
      lines.push_back(fmt::format("{} {} {} {}", disk.boot_path, disk.cylinders, disk.heads, disk.sectors));
    }
  }
  return lines;
}

}  // namespace

std::vector<std::uint8_t> encode_boot_order(const std::vector<std::string>& lines) {
  const auto text = fmt::format("{}", fmt::join(lines, "\n"));
  std::vector<std::uint8_t> bytes(text.begin(), text.end());
  if (!bytes.empty()) {
    bytes.push_back(0);
  }
  return bytes;
}

Result<void> check_facts(const MachineFacts& facts) {
  const auto bad = [](const std::string& what) {
    return fail(ErrorCode::kInvalid, fmt::format("firmware: {}", what));
  };
  if (facts.cpus < 1 || facts.cpus > 8) {
    return bad(std::to_string(facts.cpus) + " CPUs; 1 to 8 are possible");
  }
  if (facts.cpus > 1 && !facts.apic) {
    return bad("more than one CPU needs the APIC");
  }
  if (facts.ram_below_4g < 1024 * 1024 || facts.ram_below_4g > 0xE000'0000 ||
      facts.ram_below_4g % 4096 != 0) {
    return bad(std::to_string(facts.ram_below_4g) +
               " bytes of RAM below 4 GiB; 1 MiB to 3.5 GiB in whole pages are possible");
  }
  if (facts.ram_above_4g > std::uint64_t{1} << 40 || facts.ram_above_4g % 4096 != 0) {
    return bad(std::to_string(facts.ram_above_4g) +
               " bytes of RAM above 4 GiB; at most 1 TiB in whole pages");
  }
  if (facts.serial_ports > 2) {
    return bad(std::to_string(facts.serial_ports) + " serial ports; there are at most 2");
  }
  if (facts.boot_menu_wait_ms > 0xFFFF) {
    return bad(fmt::format("a boot menu wait of {} ms; at most 65535", facts.boot_menu_wait_ms));
  }
  if (facts.boot_fail_wait_ms < -1 || facts.boot_fail_wait_ms > 0xFFFF) {
    return bad(fmt::format("a wait of {} ms after a failed boot; -1 to 65535", facts.boot_fail_wait_ms));
  }
  for (const auto& device : facts.boot_devices) {
    if (device.empty() || device.size() > 255 ||
        device.find_first_of(std::string_view("\n\0", 2)) != device.npos) {
      return bad(fmt::format("'{}' is not a boot device path", device.substr(0, 64)));
    }
  }
  return {};
}

std::vector<std::uint8_t> encode_e820(const std::vector<E820Entry>& map) {
  ByteBuilder out;
  for (const auto& entry : map) {
    out.add<std::uint64_t>(entry.base);
    out.add<std::uint64_t>(entry.length);
    out.add<std::uint32_t>(entry.type);
  }
  return std::move(out.bytes);
}

Result<std::vector<FirmwareItem>> make_firmware_items(const MachineFacts& facts) {
  if (auto checked = check_facts(facts); !checked) {
    return std::unexpected(checked.error());
  }
  std::vector<FirmwareItem> items;
  const auto item = [&](std::uint16_t key, std::vector<std::uint8_t> bytes) {
    items.push_back({.key = key, .name = {}, .bytes = std::move(bytes)});
  };
  const auto file = [&](std::string_view name, std::vector<std::uint8_t> bytes) {
    items.push_back({.key = 0, .name = std::string(name), .bytes = std::move(bytes)});
  };

  item(kUuid, {facts.uuid.begin(), facts.uuid.end()});
  item(kRamSize, number<std::uint64_t>(facts.ram_below_4g + facts.ram_above_4g));
  item(kNoGraphic, number<std::uint16_t>(facts.graphics ? 0 : 1));
  item(kNbCpus, number<std::uint16_t>(static_cast<std::uint16_t>(facts.cpus)));
  item(kMaxCpus, number<std::uint16_t>(static_cast<std::uint16_t>(facts.cpus)));
  item(kNuma, std::vector<std::uint8_t>(8 * (1 + facts.cpus)));  // no nodes, then each CPU's node
  item(kBootMenu, number<std::uint16_t>(facts.boot_menu ? 1 : 0));
  item(kIrq0Override, number<std::uint32_t>(1));

  std::vector<E820Entry> map = {{0, facts.ram_below_4g, 1}};
  if (facts.ram_above_4g > 0) {
    map.push_back({kFourGib, facts.ram_above_4g, 1});
    // SeaBIOS would put 64-bit windows behind this; none is offered to the guest.
    file("etc/reserved-memory-end", number<std::uint64_t>(kFourGib + facts.ram_above_4g));
  }
  file("etc/e820", encode_e820(map));
  file("etc/max-cpus", number<std::uint16_t>(static_cast<std::uint16_t>(facts.cpus)));
  file("etc/show-boot-menu", number<std::uint16_t>(facts.boot_menu ? 1 : 0));
  file("etc/boot-menu-wait", number<std::uint16_t>(static_cast<std::uint16_t>(facts.boot_menu_wait_ms)));
  file("etc/boot-fail-wait", number<std::uint32_t>(static_cast<std::uint32_t>(facts.boot_fail_wait_ms)));
  // S0..S5: bit 7 set where the state exists, bits 2..0 its type in PM1_CNT. S0 and S5 only.
  file("etc/system-states", {0x80, 0, 0, 0, 0, 0x80});
  file("bootorder", encode_boot_order(facts.boot_devices));
  file("bios-geometry", encode_boot_order(geometry_lines(facts.disks)));

  auto smbios = make_smbios_files(facts);
  file("etc/smbios/smbios-anchor", std::move(smbios.anchor));
  file("etc/smbios/smbios-tables", std::move(smbios.tables));
  if (facts.acpi) {
    auto acpi = make_acpi_files(facts);
    file(kAcpiTablesFile, std::move(acpi.tables));
    file(kAcpiRsdpFile, std::move(acpi.rsdp));
    file(kTableLoaderFile, std::move(acpi.loader));
  }
  return items;
}

}  // namespace whistler
