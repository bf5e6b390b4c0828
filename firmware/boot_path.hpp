// Names of bootable devices as SeaBIOS matches them against the "bootorder" file: OpenFirmware device paths.
#pragma once

#include <string>

namespace whistler {

/// `slot` and `function` are the PCI position on bus 0.
[[nodiscard]] std::string ide_boot_path(unsigned slot, unsigned function, unsigned channel, unsigned unit);
/// The floppy drive `unit` of the controller at ports 0x3F0.. behind the ISA bridge.
[[nodiscard]] std::string floppy_boot_path(unsigned isa_slot, unsigned unit);
/// A network card, started by its expansion ROM.
[[nodiscard]] std::string nic_boot_path(unsigned slot, unsigned function);
/// Any other PCI card that brings a boot ROM or that SeaBIOS drives by itself (virtio-blk).
[[nodiscard]] std::string pci_boot_path(unsigned slot, unsigned function, const std::string& kind);

}  // namespace whistler
