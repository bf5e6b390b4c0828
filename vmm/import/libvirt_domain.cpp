#include "vmm/import/libvirt_domain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "vmm/import/libvirt_reader.hpp"
#include "vmm/import/qemu_command_line.hpp"

namespace whistler {
namespace {

constexpr std::uint64_t kMostCores = 8;
constexpr std::uint64_t kMostMemory = 1024 * kGiB;
constexpr std::string_view kNotHere = "Whistler does not have it: left out";
constexpr std::string_view kHostTuning =
    "the host's business: start whistler under taskset, nice, systemd-run or a cgroup instead";

std::string_view attribute(pugi::xml_node node, const char* name) { return node.attribute(name).value(); }
std::string_view text_of(pugi::xml_node node) { return node.child_value(); }

bool is_pc(std::string_view machine) {
  return machine.empty() || machine == "pc" || machine.starts_with("pc-i440fx") ||
         machine.starts_with("pc-0.") || machine.starts_with("pc-1.");
}

std::optional<std::string_view> boot_kind(std::string_view device) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kKinds = {
      {{"hd", "disk"}, {"cdrom", "cdrom"}, {"fd", "floppy"}, {"network", "network"}}};
  const auto* found = std::ranges::find(kKinds, device, [](const auto& kind) { return kind.first; });
  return found == kKinds.end() ? std::nullopt : std::optional(found->second);
}

/// How many bytes a unit of libvirt's sizes has; 0 for what is none.
std::uint64_t unit_bytes(std::string_view unit) {
  if (unit.empty()) {
    return kKiB;
  }
  if (unit == "b" || unit == "bytes") {
    return 1;
  }
  constexpr std::string_view kLetters = "KMGTPE";
  const auto power = kLetters.find(static_cast<char>(unit[0] & ~0x20));
  const auto rest = unit.substr(1);
  const bool binary = rest.empty() || rest == "iB";
  if (power == std::string_view::npos || (!binary && rest != "B")) {
    return 0;
  }
  std::uint64_t size = 1;
  for (std::size_t i = 0; i <= power; ++i) {
    size *= binary ? 1024 : 1000;
  }
  return size;
}

}  // namespace

void LibvirtReader::apply(const Rules& rules, pugi::xml_node parent) {
  for (const auto node : parent.children()) {
    if (node.type() != pugi::node_element) {
      continue;
    }
    const auto rule = rules.find(node.name());
    if (rule == rules.end()) {
      note(node, "is not known to this version: left out");
    } else if (rule->second.handler != nullptr) {
      (this->*rule->second.handler)(node);
    } else if (!rule->second.note.empty()) {
      note(node, rule->second.note);
    }
  }
}

std::uint64_t LibvirtReader::number(pugi::xml_node node, std::string_view text, std::uint64_t lowest,
                                    std::uint64_t highest) {
  const auto value = whole_number(text);
  if (!value || *value < lowest || *value > highest) {
    error(node, fmt::format("is \"{}\" where a number from {} to {} is needed", text.substr(0, 40), lowest,
                            highest));
    return lowest;
  }
  return *value;
}

std::uint64_t LibvirtReader::bytes(pugi::xml_node node) {
  const auto unit = unit_bytes(attribute(node, "unit"));
  const auto value = whole_number(text_of(node));
  if (unit == 0 || !value || *value > UINT64_MAX / unit) {
    error(node, fmt::format("\"{}\" in the unit \"{}\" is no size; write one like <{} unit='MiB'>1024</{}>",
                            text_of(node).substr(0, 40), attribute(node, "unit").substr(0, 40), node.name(),
                            node.name()));
    return 0;
  }
  return *value * unit;
}

void LibvirtReader::read() {
  const auto root = source_.root();
  if (std::string_view(root.name()) != "domain") {
    error(root, "is not a <domain>: give what `virsh dumpxml NAME` prints");
    return;
  }
  const auto type = attribute(root, "type");
  if (type != "kvm" && type != "qemu" && !type.empty()) {
    error(root, fmt::format("is of the type \"{}\"; only kvm and qemu domains are PCs that Whistler can run",
                            type.substr(0, 40)));
    return;
  }
  // Without these elements a domain has neither. The APIC is another matter: QEMU's guests have one whatever
  // <apic/> says, and a Windows installed with it does not start without.
  machine_.acpi = false;
  static const Rules kRules = {
      {"name", {&LibvirtReader::read_name}},
      {"uuid", {&LibvirtReader::read_uuid}},
      {"genid", {nullptr, "Whistler has no VM generation id: left out"}},
      {"title", {}},
      {"description", {}},
      {"metadata", {}},
      {"memory", {&LibvirtReader::read_memory}},
      {"currentMemory", {&LibvirtReader::read_current_memory}},
      {"maxMemory", {nullptr, "no memory is added while the guest runs: left out"}},
      {"memoryBacking", {&LibvirtReader::read_memory_backing}},
      {"memtune", {nullptr, kHostTuning}},
      {"numatune", {nullptr, kHostTuning}},
      {"cputune", {nullptr, kHostTuning}},
      {"blkiotune", {nullptr, kHostTuning}},
      {"vcpu", {&LibvirtReader::read_vcpu}},
      {"vcpus", {}},
      {"iothreads", {}},
      {"iothreadids", {}},
      {"defaultiothread", {}},
      {"resource", {}},
      {"os", {&LibvirtReader::read_os}},
      {"bootloader", {nullptr, "Whistler starts SeaBIOS: left out"}},
      {"sysinfo", {nullptr, "SMBIOS texts are Whistler's own but for name and uuid: left out"}},
      {"features", {&LibvirtReader::read_features}},
      {"cpu", {&LibvirtReader::read_cpu}},
      {"clock", {&LibvirtReader::read_clock}},
      {"on_poweroff", {&LibvirtReader::read_event}},
      {"on_reboot", {&LibvirtReader::read_event}},
      {"on_crash", {&LibvirtReader::read_event}},
      {"on_lockfailure", {}},
      {"pm", {&LibvirtReader::read_power_management}},
      {"perf", {nullptr, kNotHere}},
      {"seclabel", {}},
      {"keywrap", {nullptr, kNotHere}},
      {"launchSecurity", {nullptr, "Whistler does not encrypt the memory of guests: left out"}},
      {"throttlegroups", {nullptr, "Whistler does not limit the speed of disks: left out"}},
      {"devices", {&LibvirtReader::read_devices}},
      {"qemu:commandline", {&LibvirtReader::read_qemu_arguments}},
      {"qemu:capabilities", {}},
      {"qemu:deprecation", {}},
      {"qemu:override", {nullptr, kNotHere}},
  };
  apply(kRules, root);
  if (!root.child("memory")) {
    error(root, "<memory> is missing: add one like <memory unit='MiB'>1024</memory>");
  }
  for (const auto& [order, kind] : boot_orders_) {
    ImportedMachine::boot_from(machine_.boot.order, kind);
  }
  if (boot_orders_.empty()) {
    machine_.boot.order = boot_devices_;
  }
  if (machine_.boot.order.empty()) {
    machine_.boot.order = {"disk"};
  }
  // libvirt gives a screen to every domain that somebody can look at.
  machine_.vga = videos_ != 0 ? machine_.vga : has_screen_;
}

void LibvirtReader::read_name(pugi::xml_node node) { machine_.name = text_of(node); }

void LibvirtReader::read_uuid(pugi::xml_node node) {
  if (const auto uuid = tidy_uuid(text_of(node))) {
    machine_.uuid = *uuid;
  } else {
    error(node, "is not of the form 12345678-1234-1234-1234-123456789abc");
  }
}

void LibvirtReader::read_memory(pugi::xml_node node) {
  memory_ = bytes(node);
  if (report_.failed()) {
    return;
  }
  if (memory_ < kMiB || memory_ > kMostMemory) {
    error(node, fmt::format("is {} bytes; a guest can have 1 MiB to 1 TiB", memory_));
  } else if (memory_ % kMiB != 0) {
    note(node, "is not a whole number of MiB: rounded down");
  }
  machine_.memory = memory_ / kMiB * kMiB;
}

void LibvirtReader::read_current_memory(pugi::xml_node node) {
  const auto now = bytes(node);
  if (!report_.failed() && memory_ != 0 && now != memory_) {
    note(node, "Whistler has no balloon: the guest gets all of <memory>");
  }
}

void LibvirtReader::read_memory_backing(pugi::xml_node node) {
  machine_.huge_pages = !node.child("hugepages").empty();
  if (node.child("locked")) {
    note(node.child("locked"), "Whistler does not lock memory: left out");
  }
  if (node.child("hugepages").child("page")) {
    note(node.child("hugepages").child("page"), "huge pages are of the host's default size");
  }
}

void LibvirtReader::read_vcpu(pugi::xml_node node) {
  machine_.cores = number(node, text_of(node), 1, kMostCores);
  if (const auto now = attribute(node, "current"); !now.empty() && now != text_of(node)) {
    note(node, "no CPUs are added while the guest runs: it starts with all of them");
  }
  if (node.attribute("cpuset")) {
    note(node, "cpuset: start whistler under taskset instead");
  }
}

void LibvirtReader::read_os(pugi::xml_node node) {
  static const Rules kRules = {
      {"type", {&LibvirtReader::read_os_type}},
      {"boot", {&LibvirtReader::read_boot_device}},
      {"bootmenu", {&LibvirtReader::read_boot_menu}},
      {"bios", {&LibvirtReader::read_bios}},
      {"loader", {&LibvirtReader::read_loader}},
      {"nvram", {}},
      {"firmware", {}},
      {"smbios", {nullptr, "SMBIOS texts are Whistler's own but for name and uuid: left out"}},
      {"acpi", {nullptr, "Whistler takes no further ACPI tables: left out"}},
      {"kernel", {&LibvirtReader::read_kernel}},
      {"initrd", {&LibvirtReader::read_kernel}},
      {"cmdline", {&LibvirtReader::read_kernel}},
      {"dtb", {nullptr, kNotHere}},
      {"shim", {nullptr, kNotHere}},
  };
  if (attribute(node, "firmware") == "efi") {
    note(node, "Whistler starts SeaBIOS: a guest that was installed with UEFI does not start");
  }
  apply(kRules, node);
}

void LibvirtReader::read_os_type(pugi::xml_node node) {
  if (text_of(node) != "hvm") {
    error(node, fmt::format("is \"{}\" where \"hvm\", a whole PC, is needed", text_of(node).substr(0, 40)));
  }
  const auto arch = attribute(node, "arch");
  if (!arch.empty() && arch != "x86_64" && arch != "i686") {
    error(node, fmt::format("is of the architecture \"{}\"; Whistler runs i686 and x86_64 only",
                            arch.substr(0, 40)));
  }
  const auto machine = attribute(node, "machine");
  if (!is_pc(machine)) {
    note(node,
         fmt::format("machine \"{}\" becomes pc-i440fx: the guest finds another chipset, and may have to be "
                     "installed again",
                     machine.substr(0, 40)));
  }
}

void LibvirtReader::read_boot_device(pugi::xml_node node) {
  if (const auto kind = boot_kind(attribute(node, "dev"))) {
    ImportedMachine::boot_from(boot_devices_, *kind);
  } else {
    error(node,
          fmt::format("\"{}\" is not one of hd, cdrom, fd, network", attribute(node, "dev").substr(0, 40)));
  }
}

void LibvirtReader::read_boot_menu(pugi::xml_node node) {
  machine_.boot.menu = attribute(node, "enable") == "yes";
  if (machine_.boot.menu && node.attribute("timeout")) {
    machine_.boot.menu_timeout = number(node, attribute(node, "timeout"), 0, 65535);
  }
}

void LibvirtReader::read_bios(pugi::xml_node node) {
  if (const auto timeout = attribute(node, "rebootTimeout"); !timeout.empty() && timeout != "-1") {
    machine_.boot.reboot_timeout = number(node, timeout, 0, 65535);
  }
  if (attribute(node, "useserial") == "yes") {
    note(node, "useserial: SeaBIOS speaks to the screen and to the debug console only: left out");
  }
}

void LibvirtReader::read_loader(pugi::xml_node node) {
  if (attribute(node, "type") == "pflash") {
    note(node, "Whistler starts SeaBIOS: a guest that was installed with UEFI does not start");
  } else {
    machine_.bios = text_of(node);
  }
}

void LibvirtReader::read_kernel(pugi::xml_node node) {
  const std::string_view name = node.name();
  (name == "kernel"   ? machine_.boot.kernel
   : name == "initrd" ? machine_.boot.initrd
                      : machine_.boot.cmdline) = text_of(node);
}

void LibvirtReader::note_if_on(pugi::xml_node node) {
  if (attribute(node, "state") != "off") {
    note(node, kNotHere);
  }
}

void LibvirtReader::read_features(pugi::xml_node node) {
  static const Rules kRules = {
      {"acpi", {&LibvirtReader::read_acpi}},
      {"apic", {}},
      {"pae", {&LibvirtReader::read_pae}},
      {"hap", {}},
      {"privnet", {}},
      {"pmu", {}},
      {"ioapic", {}},
      {"pvspinlock", {}},
      {"viridian", {nullptr, "Whistler offers no Hyper-V interface: left out"}},
      {"hyperv", {nullptr, "Whistler offers no Hyper-V interface: left out"}},
      {"kvm", {nullptr, "Whistler does not hide KVM or change its hints: left out"}},
      {"vmport", {&LibvirtReader::note_if_on}},
      {"smm", {&LibvirtReader::note_if_on}},
  };
  apply(kRules, node);
}

void LibvirtReader::read_acpi(pugi::xml_node) { machine_.acpi = true; }

void LibvirtReader::read_pae(pugi::xml_node) { machine_.features["pae"] = true; }

void LibvirtReader::read_cpu(pugi::xml_node node) {
  static const Rules kRules = {
      {"model", {}},
      {"vendor", {}},
      {"cache", {}},
      {"maxphysaddr", {}},
      {"topology", {&LibvirtReader::read_topology}},
      {"feature", {&LibvirtReader::read_cpu_feature}},
      {"numa", {nullptr, "Whistler has one node of memory: left out"}},
  };
  const auto mode = attribute(node, "mode");
  const auto model = text_of(node.child("model"));
  if (mode == "host-model" || mode == "custom" || !model.empty()) {
    note(node, fmt::format("{} becomes host-passthrough: the guest sees the CPU of this host",
                           model.empty() ? mode.substr(0, 40) : model.substr(0, 40)));
  }
  apply(kRules, node);
}

void LibvirtReader::read_cpu_feature(pugi::xml_node node) {
  const auto policy = attribute(node, "policy");
  if (policy == "optional") {
    return;
  }
  if (!machine_.switch_feature(attribute(node, "name"), policy != "disable" && policy != "forbid")) {
    note(node,
         fmt::format("Whistler has no switch for \"{}\": left out", attribute(node, "name").substr(0, 40)));
  }
}

void LibvirtReader::read_topology(pugi::xml_node node) {
  const auto many = [&](const char* name) { return node.attribute(name) && attribute(node, name) != "1"; };
  if (many("sockets") || many("threads") || many("dies") || many("clusters")) {
    note(node, "all CPUs become cores of one socket");
  }
}

void LibvirtReader::read_clock(pugi::xml_node node) {
  static const Rules kRules = {{"timer", {&LibvirtReader::read_timer}}};
  const auto offset = attribute(node, "offset");
  machine_.local_time = offset == "localtime" || attribute(node, "basis") == "localtime";
  if (offset == "absolute") {
    machine_.clock_start = number(node, attribute(node, "start"), 0, 253'402'300'799);
  } else if (offset == "timezone") {
    machine_.local_time = true;
    note(node,
         fmt::format("the guest gets this host's local time: start whistler with TZ={} in its environment",
                     attribute(node, "timezone").substr(0, 60)));
  } else if (offset != "variable" && offset != "utc" && offset != "localtime" && !offset.empty()) {
    error(node, fmt::format("offset \"{}\" is not one of utc, localtime, timezone, variable, absolute",
                            offset.substr(0, 40)));
  }
  const auto adjustment = attribute(node, "adjustment");
  if (!adjustment.empty() && adjustment != "0" && adjustment != "reset") {
    note(node, "the adjustment is left out: set the time in the guest");
  }
  apply(kRules, node);
}

void LibvirtReader::read_timer(pugi::xml_node node) {
  const auto name = attribute(node, "name");
  const auto present = attribute(node, "present");
  if (name == "kvmclock" && !present.empty()) {
    machine_.features["kvmclock"] = present == "yes";
  } else if ((name == "hpet" || name == "hypervclock") && present != "no") {
    note(node, fmt::format("Whistler has no {}: left out", name));
  }
}

void LibvirtReader::read_event(pugi::xml_node node) {
  const std::string_view name = node.name();
  const auto action = text_of(node);
  const bool restart = action == "restart" || action == "rename-restart" || action == "coredump-restart";
  if (name == "on_reboot") {
    machine_.on.reboot_exits = !restart;
  } else if (name == "on_crash") {
    machine_.on.triple_fault_exits = !restart;
  } else if (restart) {
    note(node, "a guest that powers off ends the program: left out");
  }
  if (action == "preserve" || action.starts_with("coredump")) {
    note(node, "nothing of the guest is kept when it ends: left out");
  }
}

void LibvirtReader::read_power_management(pugi::xml_node node) {
  for (const auto mode : node.children()) {
    if (attribute(mode, "enabled") == "yes") {
      note(mode, "Whistler's guests cannot be put to sleep: left out");
    }
  }
}

void LibvirtReader::read_qemu_arguments(pugi::xml_node node) {
  std::vector<QemuWord> words;
  for (const auto argument : node.children("qemu:arg")) {
    words.push_back({std::string(attribute(argument, "value")), source_.place_of(argument)});
  }
  for (const auto variable : node.children("qemu:env")) {
    note(variable, "Whistler reads no variables of QEMU's: left out");
  }
  add_qemu_options(words, machine_, report_);
}

ImportedMachine import_libvirt_domain(std::string_view xml, ImportReport& report) {
  ImportedMachine machine;
  XmlSource source;
  if (source.parse(xml, report)) {
    LibvirtReader(source, machine, report).read();
  }
  return machine;
}

}  // namespace whistler
