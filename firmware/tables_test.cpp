// What the guest's firmware is given: items, ACPI, the loader script, SMBIOS, boot paths, BIOS files.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>

#include <catch2/catch.hpp>

#include "base/bytes.hpp"
#include "firmware/acpi.hpp"
#include "firmware/bios.hpp"
#include "firmware/boot_path.hpp"
#include "firmware/items.hpp"
#include "firmware/smbios.hpp"
#include "firmware/table_loader.hpp"
#include "firmware/test_ram.hpp"

using namespace whistler;

namespace {

using ByteVector = std::vector<std::uint8_t>;

MachineFacts two_cpu_facts() {
  MachineFacts facts;
  facts.cpus = 2;
  facts.ram_below_4g = 1ULL << 30;
  for (unsigned i = 0; i < 16; ++i) {
    facts.uuid[i] = static_cast<std::uint8_t>(0x10 + i);
  }
  return facts;
}

unsigned sum(std::span<const std::uint8_t> bytes) {
  unsigned total = 0;
  for (const auto byte : bytes) {
    total += byte;
  }
  return total & 0xFF;
}

std::map<std::string, ByteVector> files_of(const MachineFacts& facts) {
  const auto items = make_firmware_items(facts);
  REQUIRE(items);
  std::map<std::string, ByteVector> files;
  for (const auto& item : *items) {
    files[item.name.empty() ? std::to_string(item.key) : item.name] = item.bytes;
  }
  return files;
}

/// The tables resolved at 0x100000 and the RSDP at 0xF0000.
TestRam resolve(const MachineFacts& facts) {
  TestRam ram(2 << 20);
  const auto acpi = make_acpi_files(facts);
  REQUIRE(run_table_loader(
      acpi.loader, {{std::string(kAcpiTablesFile), acpi.tables}, {std::string(kAcpiRsdpFile), acpi.rsdp}},
      {.high = {0x100000, 0x20000}, .low = {0xF0000, 0x1000}}, ram));
  return ram;
}

/// Signature -> address of the tables that the RSDT at the RSDP's pointer names.
std::map<std::string, std::uint32_t> table_addresses(const TestRam& ram) {
  std::map<std::string, std::uint32_t> found;
  const auto rsdt = load_le<std::uint32_t>(&ram.bytes[0xF0010]);
  const auto length = load_le<std::uint32_t>(&ram.bytes[rsdt + 4]);
  for (std::uint32_t at = 36; at < length; at += 4) {
    const auto table = load_le<std::uint32_t>(&ram.bytes[rsdt + at]);
    found[std::string(reinterpret_cast<const char*>(&ram.bytes[table]), 4)] = table;
  }
  return found;
}

/// The table at `address`.
std::span<const std::uint8_t> table_at(const TestRam& ram, std::uint32_t address) {
  return std::span(ram.bytes).subspan(address, load_le<std::uint32_t>(&ram.bytes[address + 4]));
}

}  // namespace

TEST_CASE("items_of_a_machine_hold_what_seabios_reads", "[firmware]") {
  auto facts = two_cpu_facts();
  facts.boot_devices = {ide_boot_path(1, 1, 0, 0), ide_boot_path(1, 1, 1, 0)};
  auto files = files_of(facts);
  CHECK(files["5"] == ByteVector{2, 0});
  CHECK(files["15"] == ByteVector{2, 0});
  CHECK(files["2"] == ByteVector(facts.uuid.begin(), facts.uuid.end()));
  CHECK(files["3"] == ByteVector{0, 0, 0, 0x40, 0, 0, 0, 0});
  CHECK(files["32770"] == ByteVector{1, 0, 0, 0});
  CHECK(files["etc/e820"] == ByteVector{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0});
  const std::string order(files["bootorder"].begin(), files["bootorder"].end());
  CHECK(order == std::string("/pci@i0cf8/ide@1,1/drive@0/disk@0\n/pci@i0cf8/ide@1,1/drive@1/disk@0") + '\0');
  CHECK(files["etc/system-states"] == ByteVector{0x80, 0, 0, 0, 0, 0x80});
  CHECK(files.contains("etc/table-loader"));
}

TEST_CASE("items_without_acpi_have_no_acpi_files", "[firmware]") {
  auto facts = two_cpu_facts();
  facts.acpi = false;
  const auto files = files_of(facts);
  CHECK_FALSE(files.contains("etc/table-loader"));
  CHECK_FALSE(files.contains("etc/acpi/rsdp"));
  CHECK(files.contains("etc/smbios/smbios-tables"));
}

TEST_CASE("items_with_high_memory_map_it_at_4_gib", "[firmware]") {
  auto facts = two_cpu_facts();
  facts.ram_above_4g = 1ULL << 30;
  auto files = files_of(facts);
  REQUIRE(files["etc/e820"].size() == 40);
  CHECK(load_le<std::uint64_t>(&files["etc/e820"][20]) == 1ULL << 32);
  CHECK(load_le<std::uint64_t>(files["etc/reserved-memory-end"].data()) == 5ULL << 30);
}

TEST_CASE("facts_out_of_range_are_refused_by_name", "[firmware]") {
  auto facts = two_cpu_facts();
  facts.cpus = 9;
  CHECK(make_firmware_items(facts).error().message.find("9 CPUs") != std::string::npos);
  facts = two_cpu_facts();
  facts.apic = false;
  CHECK_FALSE(make_firmware_items(facts));
  facts = two_cpu_facts();
  facts.ram_below_4g = 0;
  CHECK_FALSE(make_firmware_items(facts));
  facts = two_cpu_facts();
  facts.boot_devices = {"a\nb"};
  CHECK_FALSE(make_firmware_items(facts));
}

TEST_CASE("boot_paths_are_as_seabios_spells_them", "[firmware]") {
  CHECK(floppy_boot_path(1, 0) == "/pci@i0cf8/isa@1/fdc@03f0/floppy@0");
  CHECK(nic_boot_path(3, 0) == "/pci@i0cf8/ethernet@3/ethernet-phy@0");
  CHECK(pci_boot_path(0x1F, 2, "scsi") == "/pci@i0cf8/scsi@1f,2");
}

TEST_CASE("acpi_tables_resolved_have_checksums_of_zero", "[firmware]") {
  const auto ram = resolve(two_cpu_facts());
  CHECK(sum(std::span(ram.bytes).subspan(0xF0000, 20)) == 0);
  const auto tables = table_addresses(ram);
  REQUIRE(tables.size() == 3);
  for (const auto& [name, address] : tables) {
    CAPTURE(name);
    CHECK(sum(table_at(ram, address)) == 0);
  }
  CHECK(sum(table_at(ram, load_le<std::uint32_t>(&ram.bytes[0xF0010]))) == 0);
}

TEST_CASE("acpi_fadt_has_the_shape_of_acpi_1_and_the_boards_ports", "[firmware]") {
  const auto ram = resolve(two_cpu_facts());
  const auto fadt = table_at(ram, table_addresses(ram).at("FACP"));
  REQUIRE(fadt.size() == 116);
  CHECK(fadt[8] == 1);
  CHECK(load_le<std::uint16_t>(&fadt[46]) == 9);
  CHECK(load_le<std::uint32_t>(&fadt[48]) == 0xB2);
  CHECK(fadt[52] == 0xF1);
  CHECK(load_le<std::uint32_t>(&fadt[56]) == 0x0600);
  CHECK(load_le<std::uint32_t>(&fadt[64]) == 0x0604);
  CHECK(load_le<std::uint32_t>(&fadt[76]) == 0x0608);
  CHECK(load_le<std::uint32_t>(&fadt[80]) == 0xAFE0);
  CHECK(fadt[92] == 4);
  CHECK(fadt[108] == 0x32);
  const auto facs = load_le<std::uint32_t>(&fadt[36]);
  CHECK(facs % 64 == 0);
  CHECK(std::string(reinterpret_cast<const char*>(&ram.bytes[facs]), 4) == "FACS");
  const auto dsdt = load_le<std::uint32_t>(&fadt[40]);
  CHECK(std::string(reinterpret_cast<const char*>(&ram.bytes[dsdt]), 4) == "DSDT");
  CHECK(sum(table_at(ram, dsdt)) == 0);
}

TEST_CASE("acpi_madt_lists_cpus_and_is_absent_without_apic", "[firmware]") {
  const auto ram = resolve(two_cpu_facts());
  const auto madt = table_at(ram, table_addresses(ram).at("APIC"));
  CHECK(madt.size() == 44 + 2 * 8 + 12 + 5 * 10 + 6);
  CHECK(madt[44 + 8 + 3] == 1);
  auto single = two_cpu_facts();
  single.cpus = 1;
  single.apic = false;
  CHECK_FALSE(table_addresses(resolve(single)).contains("APIC"));
}

TEST_CASE("acpi_dsdt_is_patched_with_window_and_serial_ports", "[firmware]") {
  auto facts = two_cpu_facts();
  facts.ram_below_4g = 0xC0000000;
  facts.serial_ports = 1;
  const auto tables = make_acpi_files(facts).tables;
  const ByteVector window = {0x08, 'P', 'M', 'I', 'N', 0x0C, 0, 0, 0, 0xC0};
  const ByteVector serial = {0x08, 'S', 'E', 'R', 'N', 0x0A, 1};
  CHECK(std::ranges::search(tables, window).begin() != tables.end());
  CHECK(std::ranges::search(tables, serial).begin() != tables.end());
}

TEST_CASE("acpi_ssdt_and_dsdt_disassemble", "[firmware]") {
  const auto ram = resolve(two_cpu_facts());
  char folder[] = "/tmp/whistler-acpi-XXXXXX";
  REQUIRE(::mkdtemp(folder) != nullptr);
  const std::string base = folder;
  const auto fadt = table_at(ram, table_addresses(ram).at("FACP"));
  for (const auto& [name, address] : {std::pair{std::string("dsdt"), load_le<std::uint32_t>(&fadt[40])},
                                      std::pair{std::string("ssdt"), table_addresses(ram).at("SSDT")}}) {
    const auto table = table_at(ram, address);
    const auto path = base + "/" + name + ".aml";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
    CHECK(std::system(("iasl -d " + path + " > " + base + "/log 2>&1 < /dev/null").c_str()) == 0);
  }
  std::ifstream text(base + "/ssdt.dsl");
  const std::string ssdt((std::istreambuf_iterator<char>(text)), std::istreambuf_iterator<char>());
  CHECK(ssdt.find("Processor (CPU1, 0x01, 0x00000000, 0x00)") != std::string::npos);
  CHECK(std::system(("rm -r " + base).c_str()) == 0);
}

TEST_CASE("table_loader_with_bad_entries_is_refused", "[firmware]") {
  const LoaderZones zones = {.high = {0x1000, 0x1000}, .low = {0xF0000, 0x1000}};
  const std::vector<LoaderFile> files = {{"a", ByteVector(16)}};
  TestRam ram(1 << 20);
  LoaderScript unplaced;
  unplaced.pointer("a", 0, "a", 4);
  CHECK_FALSE(run_table_loader(unplaced.take(), files, zones, ram));
  LoaderScript outside;
  outside.allocate("a", 16, LoaderScript::Zone::kHigh);
  outside.pointer("a", 13, "a", 4);
  CHECK_FALSE(run_table_loader(outside.take(), files, zones, ram));
  LoaderScript checksum;
  checksum.checksum("a", 0, 0xFFFFFFFF, 2);
  CHECK_FALSE(run_table_loader(checksum.take(), files, zones, ram));
  LoaderScript alignment;
  alignment.allocate("a", 3, LoaderScript::Zone::kHigh);
  CHECK_FALSE(run_table_loader(alignment.take(), files, zones, ram));
  CHECK_FALSE(run_table_loader(ByteVector(127), files, zones, ram));
}

TEST_CASE("table_loader_with_random_scripts_never_crashes", "[firmware]") {
  const auto acpi = make_acpi_files(two_cpu_facts());
  std::mt19937 random(7);
  for (int i = 0; i < 2000; ++i) {
    auto script = acpi.loader;
    for (int change = 0; change < 4; ++change) {
      script[random() % script.size()] = static_cast<std::uint8_t>(random());
    }
    TestRam ram(2 << 20);
    const auto done = run_table_loader(
        script, {{std::string(kAcpiTablesFile), acpi.tables}, {std::string(kAcpiRsdpFile), acpi.rsdp}},
        {.high = {0x100000, 0x20000}, .low = {0xF0000, 0x1000}}, ram);
    CHECK((done || !done.error().message.empty()));
  }
}

TEST_CASE("failed_boot_is_tried_again_when_asked", "[firmware]") {
  auto facts = two_cpu_facts();
  CHECK(files_of(facts)["etc/boot-fail-wait"] == ByteVector{0xFF, 0xFF, 0xFF, 0xFF});
  facts.boot_fail_wait_ms = 15;
  CHECK(files_of(facts)["etc/boot-fail-wait"] == ByteVector{15, 0, 0, 0});
  facts.boot_fail_wait_ms = 65536;
  CHECK_FALSE(make_firmware_items(facts));
}

TEST_CASE("given_geometries_are_listed_by_boot_path", "[firmware]") {
  auto facts = two_cpu_facts();
  CHECK(files_of(facts)["bios-geometry"].empty());
  facts.disks = {{ide_boot_path(1, 1, 0, 0), 10000, 120, 30},
                 {ide_boot_path(1, 1, 0, 1), 0, 0, 0},
                 {ide_boot_path(1, 1, 1, 0), 0, 1, 1}};
  const auto bytes = files_of(facts)["bios-geometry"];
  REQUIRE(bytes.size() > 1);
  CHECK(std::string(bytes.begin(), bytes.end() - 1) ==
        "/pci@i0cf8/ide@1,1/drive@0/disk@0 10000 120 30\n/pci@i0cf8/ide@1,1/drive@1/disk@0 0 1 1");
  CHECK(bytes.back() == 0);
}

TEST_CASE("smbios_structures_walk_to_the_end_marker", "[firmware]") {
  auto facts = two_cpu_facts();
  const auto smbios = make_smbios_files(facts);
  const auto& bytes = smbios.tables;
  std::vector<unsigned> types;
  std::size_t at = 0;
  std::size_t system = 0;
  while (at < bytes.size()) {
    REQUIRE(bytes.size() - at >= 4);
    types.push_back(bytes[at]);
    system = bytes[at] == 1 ? at : system;
    const std::size_t fields = bytes[at + 1];
    at += fields;
    while (at + 1 < bytes.size() && (bytes[at] != 0 || bytes[at + 1] != 0)) {
      ++at;
    }
    at += 2;
  }
  CHECK(at == bytes.size());
  CHECK(types == std::vector<unsigned>{0, 1, 3, 4, 16, 17, 19, 32, 127});
  CHECK(load_le<std::uint16_t>(&smbios.anchor[22]) == bytes.size());
  CHECK(load_le<std::uint16_t>(&smbios.anchor[28]) == types.size());
  CHECK(ByteVector(&bytes[system + 8], &bytes[system + 13]) == ByteVector{0x13, 0x12, 0x11, 0x10, 0x15});
  CHECK(bytes[system + 1] == 0x1B);
}

TEST_CASE("smbios_anchor_resolved_has_both_checksums", "[firmware]") {
  auto smbios = make_smbios_files(two_cpu_facts());
  REQUIRE(smbios.anchor.size() == 0x1F);
  resolve_smbios_anchor(smbios.anchor, 0xF1020);
  CHECK(sum(smbios.anchor) == 0);
  CHECK(sum(std::span(smbios.anchor).subspan(16)) == 0);
  CHECK(load_le<std::uint32_t>(&smbios.anchor[24]) == 0xF1020);
}

TEST_CASE("bios_files_of_wrong_kind_are_refused_by_name_and_size", "[firmware]") {
  char path[] = "/tmp/whistler-bios-XXXXXX";
  const int fd = ::mkstemp(path);
  REQUIRE(fd >= 0);
  REQUIRE(::ftruncate(fd, 65537) == 0);
  const auto odd = load_bios(path);
  REQUIRE_FALSE(odd);
  CHECK(odd.error().message.find(path) != std::string::npos);
  CHECK(odd.error().message.find("65537") != std::string::npos);
  CHECK_FALSE(load_option_rom(path));
  REQUIRE(::ftruncate(fd, 131072) == 0);
  CHECK(load_bios(path)->size() == 131072);
  REQUIRE(::ftruncate(fd, 0) == 0);
  CHECK_FALSE(load_bios(path));
  REQUIRE(::ftruncate(fd, 1LL << 40) == 0);
  CHECK_FALSE(load_bios(path));
  REQUIRE(::pwrite(fd, "\x55\xAA", 2, 0) == 2);
  REQUIRE(::ftruncate(fd, 39936) == 0);
  CHECK(load_option_rom(path)->size() == 65536);
  ::close(fd);
  ::unlink(path);
  CHECK(load_bios(path).error().code == ErrorCode::kNotFound);
  CHECK_FALSE(load_bios("/tmp"));
}
