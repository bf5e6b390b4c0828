#include "firmware/boot_path.hpp"

#include <fmt/format.h>

namespace whistler {
namespace {

/// "name@slot" or "name@slot,function", in hexadecimal.
std::string pci_node(const std::string& kind, unsigned slot, unsigned function) {
  return function == 0 ? fmt::format("/pci@i0cf8/{}@{:x}", kind, slot)
                       : fmt::format("/pci@i0cf8/{}@{:x},{:x}", kind, slot, function);
}

}  // namespace

std::string ide_boot_path(unsigned slot, unsigned function, unsigned channel, unsigned unit) {
  return pci_node("ide", slot, function) + fmt::format("/drive@{:x}/disk@{:x}", channel, unit);
}
std::string floppy_boot_path(unsigned isa_slot, unsigned unit) {
  return pci_node("isa", isa_slot, 0) + fmt::format("/fdc@03f0/floppy@{:x}", unit);
}
std::string nic_boot_path(unsigned slot, unsigned function) {
  return pci_node("ethernet", slot, function) + "/ethernet-phy@0";
}
std::string pci_boot_path(unsigned slot, unsigned function, const std::string& kind) {
  return pci_node(kind, slot, function);
}

}  // namespace whistler
