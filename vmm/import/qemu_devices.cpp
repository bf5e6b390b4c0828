// Screen, network, lines to the outside and all other devices of a QEMU command line.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "vmm/import/qemu_reader.hpp"

namespace whistler {
namespace {

constexpr std::uint64_t kFirstVncPort = 5900;
constexpr std::uint64_t kOurDebugPort = 0x402;

enum class Kind : std::uint8_t {
  kDisk,
  kFloppy,
  kCard,
  kStandardVga,
  kOtherVga,
  kSerial,
  kDebugConsole,
  kExitPort,
  kTestDevice,
  kHarmless,
  kLeftOut,
};

/// What becomes of the devices whose names begin so; the first that fits counts.
struct DeviceRule {
  std::string_view name;
  Kind kind;
  std::string_view note = "Whistler does not have this device: left out";
};

constexpr std::string_view kUsb = "this version has no USB: left out";
constexpr std::string_view kSound = "this version has no sound cards: left out";
constexpr std::array kDeviceRules = {
    DeviceRule{"ide-", Kind::kDisk},
    DeviceRule{"scsi-", Kind::kDisk},
    DeviceRule{"virtio-blk", Kind::kDisk},
    DeviceRule{"usb-storage", Kind::kDisk},
    DeviceRule{"nvme", Kind::kDisk},
    DeviceRule{"floppy", Kind::kFloppy},
    DeviceRule{"e1000", Kind::kCard},
    DeviceRule{"rtl8139", Kind::kCard},
    DeviceRule{"ne2k", Kind::kCard},
    DeviceRule{"pcnet", Kind::kCard},
    DeviceRule{"i825", Kind::kCard},
    DeviceRule{"virtio-net", Kind::kCard},
    DeviceRule{"vmxnet3", Kind::kCard},
    DeviceRule{"tulip", Kind::kCard},
    DeviceRule{"usb-net", Kind::kCard},
    DeviceRule{"VGA", Kind::kStandardVga},
    DeviceRule{"cirrus-vga", Kind::kOtherVga},
    DeviceRule{"qxl", Kind::kOtherVga},
    DeviceRule{"vmware-svga", Kind::kOtherVga},
    DeviceRule{"virtio-vga", Kind::kOtherVga},
    DeviceRule{"virtio-gpu", Kind::kOtherVga},
    DeviceRule{"bochs-display", Kind::kOtherVga},
    DeviceRule{"isa-vga", Kind::kOtherVga},
    DeviceRule{"isa-cirrus-vga", Kind::kOtherVga},
    DeviceRule{"ramfb", Kind::kOtherVga},
    DeviceRule{"isa-serial", Kind::kSerial},
    DeviceRule{"isa-debugcon", Kind::kDebugConsole},
    DeviceRule{"isa-debug-exit", Kind::kExitPort},
    DeviceRule{"pc-testdev", Kind::kTestDevice},
    DeviceRule{"isa-fdc", Kind::kHarmless},
    DeviceRule{"piix3-ide", Kind::kHarmless},
    DeviceRule{"pci-bridge", Kind::kHarmless},
    DeviceRule{"pcie-", Kind::kHarmless},
    DeviceRule{"ich9-ahci", Kind::kHarmless},  // its disks are noted
    DeviceRule{"ahci", Kind::kHarmless},
    DeviceRule{"virtio-serial", Kind::kHarmless},  // its ports are noted
    DeviceRule{"usb-", Kind::kLeftOut, kUsb},
    DeviceRule{"piix3-usb", Kind::kLeftOut, kUsb},
    DeviceRule{"piix4-usb", Kind::kLeftOut, kUsb},
    DeviceRule{"ich9-usb", Kind::kLeftOut, kUsb},
    DeviceRule{"nec-usb", Kind::kLeftOut, kUsb},
    DeviceRule{"qemu-xhci", Kind::kLeftOut, kUsb},
    DeviceRule{"pci-ohci", Kind::kLeftOut, kUsb},
    DeviceRule{"AC97", Kind::kLeftOut, kSound},
    DeviceRule{"ac97", Kind::kLeftOut, kSound},
    DeviceRule{"ES1370", Kind::kLeftOut, kSound},
    DeviceRule{"sb16", Kind::kLeftOut, kSound},
    DeviceRule{"adlib", Kind::kLeftOut, kSound},
    DeviceRule{"gus", Kind::kLeftOut, kSound},
    DeviceRule{"cs4231a", Kind::kLeftOut, kSound},
    DeviceRule{"intel-hda", Kind::kLeftOut, kSound},
    DeviceRule{"ich9-intel-hda", Kind::kLeftOut, kSound},
    DeviceRule{"hda-", Kind::kLeftOut, kSound},
    DeviceRule{"vfio-", Kind::kLeftOut, "Whistler passes no devices of the host to guests: left out"},
    DeviceRule{"virtio-9p", Kind::kLeftOut,
               "Whistler shares no folders: put the files on a disk or CD image"},
};

/// The path in "unix:PATH,server=on" and the like, and what follows it.
std::pair<std::string, std::string> path_and_rest(std::string_view text) {
  const auto comma = text.find(',');
  return {std::string(text.substr(0, comma)),
          comma == std::string_view::npos ? "" : std::string(text.substr(comma + 1))};
}

}  // namespace

void QemuReader::read_device(std::string_view value) {
  if (auto settings = settings_of(value, "driver")) {
    const auto driver = settings->take("driver");
    devices_.push_back(
        {.where = fmt::format("{} {}", where_, driver.substr(0, 80)), .settings = std::move(*settings)});
    devices_.back().settings.set("driver", driver);
  }
}

void QemuReader::build_devices() {
  for (auto& device : devices_) {
    build_device(device);
  }
  for (const auto& [id, settings] : free_drives_) {
    report_.note("-drive", fmt::format("\"{}\" is used by no -device: left out", id.substr(0, 80)));
  }
  for (const auto& [id, settings] : netdevs_) {
    report_.note("-netdev", fmt::format("\"{}\" is used by no -device: left out", id.substr(0, 80)));
  }
  for (const auto& [where, backend] : serials_) {
    build_serial(backend, where);
  }
  for (const auto& [where, backend] : debug_consoles_) {
    build_debug_console(backend, debug_port_, where);
  }
  for (const auto& [where, backend] : monitors_) {
    build_monitor(backend, where);
  }
  if (nographic_ && serials_.empty() && machine_.serial.empty()) {
    machine_.serial.push_back({.backend = "stdio", .path = {}});
  }
}

void QemuReader::build_device(PendingDevice& device) {
  auto& settings = device.settings;
  const auto driver = settings.take("driver");
  const auto* rule = std::ranges::find_if(
      kDeviceRules, [&](const DeviceRule& known) { return driver.starts_with(known.name); });
  if (rule == kDeviceRules.end()) {
    report_.note(device.where, "Whistler does not have this device: left out");
    return;
  }
  switch (rule->kind) {
    case Kind::kDisk:
      default_cdrom_ = default_cdrom_ && !driver.starts_with("ide-") && !driver.starts_with("scsi-");
      build_disk(device, driver);
      break;
    case Kind::kFloppy: build_floppy(device); break;
    case Kind::kCard: build_card(device, driver); break;
    case Kind::kStandardVga:
      machine_.vga = true;
      if (const auto room = settings.take("vgamem_mb"); !room.empty()) {
        machine_.set_vram(number(device.where, room, 1, 1024) * kMiB);
      }
      break;
    case Kind::kOtherVga:
      machine_.vga = true;
      report_.note(device.where, "becomes the standard VGA: the guest may need its driver for another card");
      break;
    case Kind::kSerial: build_serial("chardev:" + settings.take("chardev"), device.where); break;
    case Kind::kDebugConsole: {
      const auto port = settings.take("iobase");
      build_debug_console("chardev:" + settings.take("chardev"),
                          port.empty() ? debug_port_ : number(device.where, port, 1, 0xFFFF), device.where);
      break;
    }
    case Kind::kExitPort: {
      const auto port = settings.take("iobase");
      machine_.debug.exit_port = port.empty() ? 0x501 : number(device.where, port, 1, 0xFFFF);
      break;
    }
    case Kind::kTestDevice: machine_.debug.testdev = true; break;
    case Kind::kHarmless: break;
    case Kind::kLeftOut: report_.note(device.where, rule->note); break;
  }
}

// ---- screen ----

void QemuReader::read_vga(std::string_view value) {
  machine_.vga = value != "none";
  if (machine_.vga && value != "std") {
    note(fmt::format("{} becomes the standard VGA: the guest may need its driver for another card",
                     value.substr(0, 40)));
  }
}

void QemuReader::read_vnc(std::string_view value) {
  auto settings = settings_of(value, "vnc");
  if (!settings) {
    return;
  }
  const auto address = settings->take("vnc");
  if (address == "none") {
    no_screen_ = true;
    return;
  }
  ImportedVnc vnc;
  const auto colon = address.rfind(':');
  if (address.starts_with("unix:") || colon == std::string::npos) {
    note("Whistler's VNC is on a port, not on a socket: it becomes 127.0.0.1 and the first free port");
  } else {
    auto host = address.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) {
      host = host.substr(1, host.size() - 2);
    }
    vnc.listen = host.empty() ? "0.0.0.0" : host;
    const auto display =
        number(where_, std::string_view(address).substr(colon + 1), 0, 65535 - kFirstVncPort);
    // With a range to choose from, QEMU takes the first free one, as Whistler does from 5900 on.
    vnc.port = settings->has("to") ? -1 : static_cast<int>(kFirstVncPort + display);
  }
  vnc.password = settings->flag("password", false) || settings->has("password-secret");
  vnc.websocket = settings->has("websocket");
  for (const auto* key : {"to", "password-secret", "websocket", "share", "id", "lossy", "non-adaptive",
                          "key-delay-ms", "power-control", "audiodev", "ipv4", "ipv6"}) {
    static_cast<void>(settings->take(key));
  }
  note_left(*settings, where_);
  machine_.vnc = vnc;
}

void QemuReader::read_display(std::string_view value) {
  const auto [kind, rest] = path_and_rest(value);
  if (kind == "none") {
    no_screen_ = true;
  } else if (kind.starts_with("vnc=")) {
    read_vnc(value.substr(4));
  } else {
    note(fmt::format("{} becomes VNC on 127.0.0.1: connect with any VNC viewer", kind.substr(0, 40)));
  }
}

void QemuReader::read_spice(std::string_view) {
  note("becomes VNC on 127.0.0.1: connect with any VNC viewer");
}

// ---- network ----

void QemuReader::read_netdev(std::string_view value) {
  if (auto settings = settings_of(value, "type")) {
    netdevs_.insert_or_assign(settings->take("id"), *settings);
  }
}

void QemuReader::build_card(PendingDevice& device, std::string_view driver) {
  auto& settings = device.settings;
  ImportedCard card{.model = std::string(driver), .mac = settings.take("mac")};
  const auto name = settings.take("netdev");
  if (const auto index = settings.take("bootindex"); !index.empty() && index != "-1") {
    boot_indexes_.emplace(number(device.where, index, 0, 65535), "network");
  }
  std::string type = "user";
  if (const auto found = netdevs_.find(name); found != netdevs_.end()) {
    type = found->second.take("type");
    card.restrict = found->second.flag("restrict", false);
    netdevs_.erase(found);
  }
  machine_.add_card(std::move(card), device.where, report_);
  if (type != "user") {
    report_.note(device.where,
                 fmt::format("the connection to {} becomes the backend \"user\"", type.substr(0, 40)));
  }
}

void QemuReader::read_nic(std::string_view value) {
  auto settings = settings_of(value, "type");
  if (!settings) {
    return;
  }
  const auto type = settings->take("type");
  if (type == "none") {
    return;
  }
  const auto model = settings->take("model");
  ImportedCard card{.model = model.empty() ? "e1000" : model, .mac = settings->take("mac")};
  card.restrict = settings->flag("restrict", false);
  machine_.add_card(std::move(card), where_, report_);
  if (type != "user") {
    note(fmt::format("the connection to {} becomes the backend \"user\"", type.substr(0, 40)));
  }
}

void QemuReader::read_net(std::string_view value) {
  auto settings = settings_of(value, "type");
  if (!settings) {
    return;
  }
  const auto type = settings->take("type");
  if (type == "nic") {
    const auto model = settings->take("model");
    machine_.add_card({.model = model.empty() ? "e1000" : model, .mac = settings->take("macaddr")}, where_,
                      report_);
  } else if (type != "none" && type != "user") {
    note(fmt::format("the connection to {} becomes the backend \"user\"", type.substr(0, 40)));
  }
}

// ---- lines to the outside ----

void QemuReader::read_chardev(std::string_view value) {
  if (auto settings = settings_of(value, "backend")) {
    chardevs_.insert_or_assign(settings->take("id"), *settings);
  }
}

std::string QemuReader::resolve_backend(const std::string& backend) {
  if (!backend.starts_with("chardev:")) {
    return backend;
  }
  const auto found = chardevs_.find(backend.substr(8));
  if (found == chardevs_.end()) {
    return backend;
  }
  auto& settings = found->second;
  const auto kind = settings.take("backend");
  const auto path = settings.take("path");
  if (kind == "socket" && !path.empty()) {
    return fmt::format("unix:{},server={}", path, settings.flag("server", false) ? "on" : "off");
  }
  return kind == "file" ? "file:" + path : kind;
}

void QemuReader::read_serial(std::string_view value) { serials_.emplace_back(where_, value); }

void QemuReader::build_serial(const std::string& given, std::string_view where) {
  auto backend = resolve_backend(given);
  if (backend.starts_with("mon:")) {
    backend = backend.substr(4);  // Whistler's own keys are always there
  }
  ImportedSerial port{.backend = "none", .path = {}};
  const auto [name, rest] = path_and_rest(backend);
  if (name == "stdio" || name == "pty") {
    port.backend = name;
  } else if (name.starts_with("file:") && name.size() > 5) {
    port = {.backend = "file", .path = name.substr(5)};
  } else if (name.starts_with("unix:") && name.size() > 5 && rest.find("server") != std::string::npos &&
             rest.find("server=off") == std::string::npos) {
    port = {.backend = "unix", .path = name.substr(5)};
  } else if (backend != "none" && backend != "null" && !backend.starts_with("vc")) {
    report_.note(where,
                 fmt::format("a serial port on {} is connected to nothing: use stdio, pty, file:PATH or "
                             "unix:PATH,server=on",
                             backend.substr(0, 80)));
  }
  machine_.add_serial(std::move(port), where, report_);
}

void QemuReader::read_debugcon(std::string_view value) { debug_consoles_.emplace_back(where_, value); }

void QemuReader::build_debug_console(const std::string& given, std::uint64_t port, std::string_view where) {
  const auto backend = resolve_backend(given);
  const auto [name, rest] = path_and_rest(backend);
  if (name == "stdio" || (name.starts_with("file:") && name.size() > 5)) {
    machine_.debug.console = name;
  } else if (name != "none" && name != "null") {
    report_.note(where, fmt::format("left out: {} is not stdio or file:PATH", backend.substr(0, 80)));
    return;
  }
  if (port != kOurDebugPort) {
    report_.note(where, fmt::format("the debug console is at port {:#x}, not at {:#x}", kOurDebugPort, port));
  }
}

void QemuReader::read_monitor(std::string_view value) {
  if (value != "none" && value != "null" && !value.starts_with("vc")) {
    note("Whistler has no monitor for people, but one for programs: give it a socket with -qmp");
  }
}

void QemuReader::read_qmp(std::string_view value) {
  if (value != "none") {
    monitors_.emplace_back(where_, value);
  }
}

void QemuReader::read_mon(std::string_view value) {
  auto settings = settings_of(value, "chardev");
  if (!settings) {
    return;
  }
  const auto backend = "chardev:" + settings->take("chardev");
  if (settings->take("mode") == "control") {
    monitors_.emplace_back(where_, backend);
  } else {
    read_monitor(backend);
  }
}

void QemuReader::build_monitor(const std::string& given, std::string_view where) {
  const auto backend = resolve_backend(given);
  const auto [name, rest] = path_and_rest(backend);
  const bool listens =
      rest.find("server") != std::string::npos && rest.find("server=off") == std::string::npos;
  if (name.starts_with("unix:") && name.size() > 5 && listens && machine_.monitor_socket.empty()) {
    machine_.monitor_socket = name.substr(5);
  } else {
    report_.note(where,
                 fmt::format("left out: {} is not a socket to listen on; whistler run --qmp takes one like "
                             "unix:PATH,server",
                             backend.substr(0, 80)));
  }
}

}  // namespace whistler
