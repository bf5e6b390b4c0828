// Starting a kernel without firmware: a Linux bzImage or a Multiboot 1 image is put into RAM with all it
// expects. Models: Linux boot protocol 2.02 and later through its 32-bit entry (64-bit kernels too);
// Multiboot 0.6.96 ELF32, ELF64 stored for a 32-bit entry, and images with the header's own address fields;
// one initrd or module; a memory map. Missing: zImage (kernels loaded low), the EFI and 64-bit entries,
// Multiboot video modes, drives and APM tables. Documentation: Linux, Documentation/arch/x86/boot.rst;
// Multiboot Specification 0.6.96.
//
// No BIOS runs, so nobody has set up PCI or the interrupt controllers: prepare_direct_boot() lists what is
// needed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.hpp"
#include "firmware/facts.hpp"
#include "firmware/ram_writer.hpp"

namespace whistler {

struct DirectBootFiles {
  std::string kernel_name;  ///< for messages
  std::span<const std::uint8_t> kernel;
  std::string initrd_name;
  std::optional<std::span<const std::uint8_t>> initrd;  ///< for Multiboot: the first module
  std::string cmdline;
};

/// How the boot processor starts: 32-bit protected mode, no paging, interrupts off, flat segments from the
/// GDT in RAM, A20 open. Every register not named is zero.
struct DirectBoot {
  std::uint32_t eip = 0;
  std::uint32_t eax = 0;
  std::uint32_t ebx = 0;
  std::uint32_t esi = 0;
  std::uint32_t esp = 0;
  std::uint32_t gdt_base = 0;
  std::uint16_t gdt_limit = 0;
  std::uint16_t code_selector = 0x10;  ///< base 0, limit 4 GiB, execute and read
  std::uint16_t data_selector = 0x18;  ///< base 0, limit 4 GiB, read and write: ds, es, fs, gs, ss
};

/// Which of the two it is is read from the file. Everything is written through `ram`, ACPI tables (when
/// facts.acpi), and SMBIOS included. The files may be hostile; errors name the
/// file and the reason.
///
/// What a BIOS would have left behind and the VMM must set before it starts the CPU:
///   - i440FX: PAM0 to PAM6 (0x59..0x5F) = 0x33, so that 0xC0000..0xFFFFF is the RAM written here;
///   - PCI: PIRQ registers 0x60..0x63 = 10, 10, 11, 11 of the ISA bridge and ELCR 0x4D0/0x4D1 with 9, 10 and
///   11 level-triggered;
///     each function's interrupt line register = the IRQ of its PIRQ; base addresses (kernels assign what is
///     left at 0, but the text console wants VGA decoded and early consoles want no BAR at all);
///   - PIIX4 PM: PMBASE 0x40 = 0x601, PMREGMISC 0x80 bit 0, SCI on IRQ 9 (interrupt line register 9), SMBus
///   base 0x700;
///   - IDE: decode enable (IDETIM 0x40, 0x42 bit 15) and I/O decoding in the command register;
///   - local APIC of CPU 0: LINT0 ExtINT, LINT1 NMI; other CPUs wait for SIPI as after reset;
///   - VGA: a text mode, when the kernel is to write to it.
[[nodiscard]] Result<DirectBoot> prepare_direct_boot(const DirectBootFiles& files, const MachineFacts& facts,
                                                     RamWriter& ram);

}  // namespace whistler
