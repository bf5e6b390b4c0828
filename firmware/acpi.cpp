#include "firmware/acpi.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

#include "firmware/byte_builder.hpp"
#include "firmware/table_loader.hpp"

namespace whistler {
namespace {

#include "dsdt.hex"  // made from dsdt.asl: unsigned char dsdt_aml_code[]

constexpr std::size_t kChecksumAt = 9;
constexpr std::uint32_t kLocalApic = 0xFEE0'0000;
constexpr std::uint32_t kIoApic = 0xFEC0'0000;
constexpr unsigned kSci = 9;

/// The table header of ACPI 1.0b, 5.2.3; length and checksum come with finish().
std::uint32_t begin(ByteBuilder& out, std::string_view signature, unsigned revision) {
  out.align(16);
  const auto start = out.size();
  out.add_text(signature, 4);
  out.add<std::uint32_t>(0);
  out.add8(revision);
  out.add8(0);
  out.add_text("WHISTL", 6);
  out.add_text("WHISTPC", 8);
  out.add<std::uint32_t>(1);
  out.add_text("WHST", 4);
  out.add<std::uint32_t>(1);
  return start;
}

/// Sets the length and has the checksum made once the pointers in the table are known.
void finish(ByteBuilder& out, std::uint32_t start, LoaderScript& script) {
  store_le<std::uint32_t>(&out.bytes[start + 4], out.size() - start);
  script.checksum(kAcpiTablesFile, start + kChecksumAt, start, out.size() - start);
}

/// Where PCI memory begins: SeaBIOS assigns from the first of these that is free of RAM.
std::uint32_t pci_window(const MachineFacts& facts) {
  constexpr std::array<std::uint32_t, 3> kStarts = {0x8000'0000, 0xC000'0000, 0xE000'0000};
  const auto* start = std::ranges::find_if(kStarts, [&](auto at) { return facts.ram_below_4g <= at; });
  return start == kStarts.end() ? kStarts.back() : *start;
}

/// Puts `value` behind the AML of `Name (name, <integer>)`; the .asl fixes its width.
template <std::unsigned_integral T>
void patch_name(std::span<std::uint8_t> aml, std::string_view name, std::type_identity_t<T> value) {
  constexpr std::uint8_t kNameOp = 0x08;
  for (std::size_t at = 0; at + 6 + sizeof value <= aml.size(); ++at) {
    if (aml[at] == kNameOp && std::equal(name.begin(), name.end(), &aml[at + 1])) {
      store_le<T>(&aml[at + 6], value);
      return;
    }
  }
}

std::uint32_t add_dsdt(ByteBuilder& out, const MachineFacts& facts, LoaderScript& script) {
  out.align(16);
  const auto start = out.size();
  out.add_bytes(dsdt_aml_code);
  const auto aml = std::span(out.bytes).subspan(start);
  patch_name<std::uint32_t>(aml, "PMIN", pci_window(facts));
  patch_name<std::uint8_t>(aml, "SERN", static_cast<std::uint8_t>((1U << facts.serial_ports) - 1));
  aml[kChecksumAt] = 0;
  finish(out, start, script);
  return start;
}

/// Scope (\_SB) { Processor (CPUn, n, 0, 0) {} ... }
std::uint32_t add_ssdt(ByteBuilder& out, const MachineFacts& facts, LoaderScript& script) {
  constexpr unsigned kProcessorSize = 13;
  const auto start = begin(out, "SSDT", 1);
  out.add8(0x10);                                               // ScopeOp
  const unsigned length = 2 + 5 + facts.cpus * kProcessorSize;  // with its own two bytes: fits 12 bits
  out.add8(0x40 | (length & 0x0F));
  out.add8(length >> 4);
  out.add_text("\\_SB_", 5);
  for (unsigned cpu = 0; cpu < facts.cpus; ++cpu) {
    out.add8(0x5B);  // ProcessorOp
    out.add8(0x83);
    out.add8(kProcessorSize - 2);
    out.add_text("CPU", 3);
    out.add8('0' + cpu);
    out.add8(cpu);
    out.add<std::uint32_t>(0);  // no P_BLK: C1 only
    out.add8(0);
  }
  finish(out, start, script);
  return start;
}

/// ACPI 1.0b, 5.2.5.
std::uint32_t add_fadt(ByteBuilder& out, std::uint32_t facs, std::uint32_t dsdt, LoaderScript& script) {
  const auto start = begin(out, "FACP", 1);
  script.pointer(kAcpiTablesFile, out.size(), kAcpiTablesFile, 4);
  out.add<std::uint32_t>(facs);
  script.pointer(kAcpiTablesFile, out.size(), kAcpiTablesFile, 4);
  out.add<std::uint32_t>(dsdt);
  out.add8(1);  // INT_MODEL: multiple APIC
  out.add8(0);
  out.add<std::uint16_t>(kSci);
  out.add<std::uint32_t>(0xB2);  // SMI_CMD
  out.add8(0xF1);                // ACPI_ENABLE
  out.add8(0xF0);                // ACPI_DISABLE
  out.add8(0);                   // S4BIOS_REQ
  out.add8(0);
  out.add<std::uint32_t>(0x0600);  // PM1a_EVT_BLK
  out.add<std::uint32_t>(0);
  out.add<std::uint32_t>(0x0604);  // PM1a_CNT_BLK
  out.add<std::uint32_t>(0);
  out.add<std::uint32_t>(0);       // PM2_CNT_BLK
  out.add<std::uint32_t>(0x0608);  // PM_TMR_BLK
  out.add<std::uint32_t>(0xAFE0);  // GPE0_BLK
  out.add<std::uint32_t>(0);
  out.add8(4);  // PM1_EVT_LEN
  out.add8(2);  // PM1_CNT_LEN
  out.add8(0);  // PM2_CNT_LEN
  out.add8(4);  // PM_TM_LEN
  out.add8(4);  // GPE0_BLK_LEN
  out.add8(0);
  out.add8(0);
  out.add8(0);
  out.add<std::uint16_t>(0xFFF);  // P_LVL2_LAT: above 100 is no C2
  out.add<std::uint16_t>(0xFFF);  // P_LVL3_LAT: above 1000 is no C3
  out.add_zeros(8);               // cache flushing, duty cycle, day and month alarm
  out.add8(0x32);                 // CENTURY in CMOS
  out.add_zeros(3);
  constexpr std::uint32_t kWbinvd = 1 << 0;
  constexpr std::uint32_t kProcC1 = 1 << 2;
  constexpr std::uint32_t kNoFixedSleepButton = 1 << 5;
  constexpr std::uint32_t kNoFixedRtcWake = 1 << 6;
  out.add<std::uint32_t>(kWbinvd | kProcC1 | kNoFixedSleepButton | kNoFixedRtcWake);
  finish(out, start, script);
  return start;
}

/// ACPI 1.0b, 5.2.8.
std::uint32_t add_madt(ByteBuilder& out, const MachineFacts& facts, LoaderScript& script) {
  const auto start = begin(out, "APIC", 1);
  out.add<std::uint32_t>(kLocalApic);
  out.add<std::uint32_t>(1);  // there are 8259s too
  for (unsigned cpu = 0; cpu < facts.cpus; ++cpu) {
    out.add8(0);  // processor local APIC
    out.add8(8);
    out.add8(cpu);
    out.add8(cpu);
    out.add<std::uint32_t>(1);
  }
  out.add8(1);  // I/O APIC
  out.add8(12);
  out.add8(0);
  out.add8(0);
  out.add<std::uint32_t>(kIoApic);
  out.add<std::uint32_t>(0);
  const auto redirect = [&](unsigned irq, unsigned gsi, unsigned flags) {
    out.add8(2);  // interrupt source override
    out.add8(10);
    out.add8(0);
    out.add8(irq);
    out.add<std::uint32_t>(gsi);
    out.add<std::uint16_t>(static_cast<std::uint16_t>(flags));
  };
  redirect(0, 2, 0);
  constexpr unsigned kActiveHighLevel = 0x0D;
  for (const unsigned irq : {5U, kSci, 10U, 11U}) {
    redirect(irq, irq, kActiveHighLevel);
  }
  out.add8(4);  // local APIC NMI
  out.add8(6);
  out.add8(0xFF);
  out.add<std::uint16_t>(0);
  out.add8(1);
  finish(out, start, script);
  return start;
}

}  // namespace

AcpiFiles make_acpi_files(const MachineFacts& facts) {
  LoaderScript script;
  script.allocate(kAcpiRsdpFile, 16, LoaderScript::Zone::kLow);
  script.allocate(kAcpiTablesFile, 64, LoaderScript::Zone::kHigh);

  ByteBuilder out;
  out.add_text("FACS", 4);  // first, for its 64-byte alignment; it has no checksum
  out.add<std::uint32_t>(64);
  out.add_zeros(56);
  const auto dsdt = add_dsdt(out, facts, script);
  std::vector<std::uint32_t> tables = {add_fadt(out, 0, dsdt, script), add_ssdt(out, facts, script)};
  if (facts.apic) {
    tables.push_back(add_madt(out, facts, script));
  }
  const auto rsdt = begin(out, "RSDT", 1);
  for (const auto table : tables) {
    script.pointer(kAcpiTablesFile, out.size(), kAcpiTablesFile, 4);
    out.add<std::uint32_t>(table);
  }
  finish(out, rsdt, script);

  ByteBuilder rsdp;  // ACPI 1.0b, 5.2.2
  rsdp.add_text("RSD PTR ", 8);
  rsdp.add8(0);
  rsdp.add_text("WHISTL", 6);
  rsdp.add8(0);
  script.pointer(kAcpiRsdpFile, rsdp.size(), kAcpiTablesFile, 4);
  rsdp.add<std::uint32_t>(rsdt);
  script.checksum(kAcpiRsdpFile, 8, 0, rsdp.size());
  return {std::move(out.bytes), std::move(rsdp.bytes), script.take()};
}

}  // namespace whistler
