// The inside of the libvirt import: one reader whose parts are in two files, the machine and its devices.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/import/xml_source.hpp"

namespace whistler {

class LibvirtReader {
 public:
  LibvirtReader(const XmlSource& source, ImportedMachine& machine, ImportReport& report)
      : source_(source), machine_(machine), report_(report) {}

  void read();

 private:
  using Handler = void (LibvirtReader::*)(pugi::xml_node);
  /// What becomes of an element: read, or noted with this text, or neither.
  struct Rule {
    Handler handler = nullptr;
    std::string_view note = {};
  };
  using Rules = std::map<std::string_view, Rule>;

  /// Applies the rules to all elements in `parent`. Those without a rule are noted as unknown.
  void apply(const Rules& rules, pugi::xml_node parent);

  // libvirt_domain.cpp
  void read_name(pugi::xml_node node);
  void read_uuid(pugi::xml_node node);
  void read_memory(pugi::xml_node node);
  void read_current_memory(pugi::xml_node node);
  void read_memory_backing(pugi::xml_node node);
  void read_vcpu(pugi::xml_node node);
  void read_os(pugi::xml_node node);
  void read_os_type(pugi::xml_node node);
  void read_boot_device(pugi::xml_node node);
  void read_boot_menu(pugi::xml_node node);
  void read_bios(pugi::xml_node node);
  void read_loader(pugi::xml_node node);
  void read_kernel(pugi::xml_node node);
  void read_features(pugi::xml_node node);
  void read_acpi(pugi::xml_node node);
  void read_pae(pugi::xml_node node);
  void read_cpu(pugi::xml_node node);
  void read_cpu_feature(pugi::xml_node node);
  void read_topology(pugi::xml_node node);
  void read_clock(pugi::xml_node node);
  void read_timer(pugi::xml_node node);
  void read_event(pugi::xml_node node);
  void read_power_management(pugi::xml_node node);
  void read_qemu_arguments(pugi::xml_node node);
  void note_if_on(pugi::xml_node node);

  // libvirt_devices.cpp
  void read_devices(pugi::xml_node node);
  void read_disk(pugi::xml_node node);
  [[nodiscard]] bool read_disk_source(pugi::xml_node disk, ImportedDrive& drive);
  void read_disk_driver(pugi::xml_node disk, ImportedDrive& drive);
  void read_disk_place(pugi::xml_node disk, ImportedDrive& drive);
  void read_disk_details(pugi::xml_node disk, ImportedDrive& drive);
  void read_controller(pugi::xml_node node);
  void read_interface(pugi::xml_node node);
  void read_input(pugi::xml_node node);
  void read_graphics(pugi::xml_node node);
  void read_video(pugi::xml_node node);
  void read_serial(pugi::xml_node node);
  void read_console(pugi::xml_node node);
  void read_channel(pugi::xml_node node);
  void read_model_device(pugi::xml_node node);
  /// <boot order='1'/> of a device.
  void read_boot_order(pugi::xml_node device, std::string_view kind);

  void note(pugi::xml_node node, std::string_view text) { report_.note(source_.place_of(node), text); }
  void error(pugi::xml_node node, std::string_view text) { report_.error(source_.place_of(node), text); }
  /// The element's text, or the attribute's, as a number within the limits; anything else is an error.
  [[nodiscard]] std::uint64_t number(pugi::xml_node node, std::string_view text, std::uint64_t lowest,
                                     std::uint64_t highest);
  [[nodiscard]] std::uint64_t bytes(pugi::xml_node node);

  const XmlSource& source_;
  ImportedMachine& machine_;
  ImportReport& report_;
  std::uint64_t memory_ = 0;  ///< in bytes, as the domain says
  std::vector<std::string> boot_devices_;
  std::multimap<std::uint64_t, std::string> boot_orders_;
  std::size_t videos_ = 0;
  bool has_screen_ = false;
  bool has_usb_note_ = false;
};

}  // namespace whistler
