// The <devices> of a libvirt domain.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "vmm/import/libvirt_reader.hpp"

namespace whistler {
namespace {

std::string_view attribute(pugi::xml_node node, const char* name) { return node.attribute(name).value(); }

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::ranges::find(words, word) != words.end();
}

/// What a QEMU person would type to get at it, for notes on disks that Whistler cannot open.
std::string source_of(pugi::xml_node source) {
  for (const char* name : {"file", "dev", "name", "volume", "dir"}) {
    if (const auto value = attribute(source, name); !value.empty()) {
      return std::string(value);
    }
  }
  return {};
}

}  // namespace

void LibvirtReader::read_devices(pugi::xml_node node) {
  constexpr std::string_view kNotHere = "Whistler does not have this device: left out";
  static const Rules kRules = {
      {"emulator", {}},
      {"disk", {&LibvirtReader::read_disk}},
      {"controller", {&LibvirtReader::read_controller}},
      {"interface", {&LibvirtReader::read_interface}},
      {"input", {&LibvirtReader::read_input}},
      {"graphics", {&LibvirtReader::read_graphics}},
      {"video", {&LibvirtReader::read_video}},
      {"serial", {&LibvirtReader::read_serial}},
      {"console", {&LibvirtReader::read_console}},
      {"channel", {&LibvirtReader::read_channel}},
      {"parallel", {nullptr, "Whistler has no parallel port: left out"}},
      {"sound", {nullptr, "this version has no sound cards: left out"}},
      {"audio", {}},  // the host's side of sound cards, which are noted themselves
      {"memballoon", {&LibvirtReader::read_model_device}},
      {"iommu", {&LibvirtReader::read_model_device}},
      {"panic", {nullptr, "Whistler has no panic device: the guest's own crash handling is all there is"}},
      {"redirdev", {nullptr, "this version has no USB: left out"}},
      {"redirfilter", {}},
      {"hub", {nullptr, "this version has no USB: left out"}},
      {"hostdev", {nullptr, "Whistler passes no devices of the host to guests: left out"}},
      {"filesystem", {nullptr, "Whistler shares no folders: put the files on a disk image or a CD image"}},
      {"smartcard", {nullptr, kNotHere}},
      {"rng", {nullptr, kNotHere}},
      {"tpm", {nullptr, kNotHere}},
      {"watchdog", {nullptr, kNotHere}},
      {"shmem", {nullptr, kNotHere}},
      {"memory", {nullptr, kNotHere}},
      {"vsock", {nullptr, kNotHere}},
      {"crypto", {nullptr, kNotHere}},
      {"nvram", {nullptr, kNotHere}},
      {"lease", {nullptr, "Whistler locks images by itself: left out"}},
  };
  apply(kRules, node);
}

void LibvirtReader::read_boot_order(pugi::xml_node device, std::string_view kind) {
  if (const auto boot = device.child("boot")) {
    boot_orders_.emplace(number(boot, attribute(boot, "order"), 1, 65535), kind);
  }
}

// ---- disks ----

void LibvirtReader::read_disk(pugi::xml_node node) {
  ImportedDrive drive;
  const auto target = node.child("target");
  const auto kind = attribute(node, "device");
  drive.id = attribute(target, "dev");
  drive.where = fmt::format("{} {}", source_.place_of(node), drive.id);
  if (kind == "cdrom") {
    drive.media = Media::kCdrom;
  } else if (kind == "floppy") {
    drive.interface = DriveInterface::kFloppy;
  } else if (kind == "lun") {
    report_.note(drive.where, "SCSI passthrough becomes an ordinary disk");
  }
  read_boot_order(node, drive.media == Media::kCdrom                 ? "cdrom"
                        : drive.interface == DriveInterface::kFloppy ? "floppy"
                                                                     : "disk");
  read_disk_driver(node, drive);
  if (!read_disk_source(node, drive)) {
    return;
  }
  read_disk_place(node, drive);
  read_disk_details(node, drive);
  machine_.drives.push_back(std::move(drive));
}

void LibvirtReader::read_disk_driver(pugi::xml_node disk, ImportedDrive& drive) {
  const auto driver = disk.child("driver");
  const auto format = attribute(driver, "type");
  drive.format = format.empty() ? "raw" : format;
  if (format.empty() && drive.media == Media::kDisk && drive.interface == DriveInterface::kIde) {
    report_.note(drive.where, "<driver> has no type: raw, as libvirt takes it");
  }
  const auto cache = attribute(driver, "cache");
  if (cache.empty() || cache == "default") {
    return;
  }
  if (is_one_of(cache, {"none", "writeback", "writethrough", "directsync", "unsafe"})) {
    drive.cache = cache;
  } else {
    error(driver, fmt::format("cache \"{}\" is not one of none, writeback, writethrough, directsync, unsafe",
                              cache.substr(0, 40)));
  }
}

bool LibvirtReader::read_disk_source(pugi::xml_node disk, ImportedDrive& drive) {
  const auto source = disk.child("source");
  const auto type = attribute(disk, "type");
  const bool removable = drive.media == Media::kCdrom || drive.interface == DriveInterface::kFloppy;
  if (type == "network" && attribute(source, "protocol") == "nbd") {
    const auto host = source.child("host");
    const auto name = attribute(source, "name");
    const bool tls = attribute(source, "tls") == "yes";
    if (attribute(host, "transport") == "unix") {
      drive.file = fmt::format("nbd+unix:///{}?socket={}", name, attribute(host, "socket"));
    } else {
      const auto port = attribute(host, "port");
      drive.file = fmt::format("{}://{}:{}/{}", tls ? "nbds" : "nbd", attribute(host, "name"),
                               port.empty() ? "10809" : port, name);
    }
  } else if (type.empty() || type == "file" || type == "block") {
    drive.file = attribute(source, type == "block" ? "dev" : "file");
  } else if (source || !removable) {
    report_.note(
        drive.where,
        fmt::format("left out: its source is of the type {}{}; give Whistler a file, a block device or an "
                    "NBD server{}",
                    type.substr(0, 40),
                    type == "network" ? " " + std::string(attribute(source, "protocol")) : "",
                    type == "volume" ? ", as `virsh vol-path " + source_of(source) + "` names it" : ""));
    return false;
  }
  if (drive.file.empty()) {
    if (drive.interface == DriveInterface::kFloppy) {
      report_.note(drive.where, "left out: this version has no floppy drives");
      return false;
    }
    if (!removable) {
      error(disk, "has no <source>: a disk needs its image");
    }
    return !report_.failed();
  }
  if (drive.format != "raw" && drive.format != "qcow2") {
    report_.note(
        drive.where,
        fmt::format("left out: {} is {}, and machines start from raw and qcow2 only; first run: whistler "
                    "img convert -O qcow2 {} NEW.qcow2",
                    drive.file, drive.format.substr(0, 40), drive.file));
    return false;
  }
  return true;
}

void LibvirtReader::read_disk_place(pugi::xml_node disk, ImportedDrive& drive) {
  const auto target = disk.child("target");
  const auto dev = attribute(target, "dev");
  auto bus = attribute(target, "bus");
  if (bus.empty()) {  // libvirt goes by the name, then
    bus = dev.starts_with("vd") ? "virtio" : dev.starts_with("sd") ? "scsi" : "ide";
  }
  if (drive.interface == DriveInterface::kFloppy) {
    if (dev.size() == 3 && (dev[2] == 'a' || dev[2] == 'b')) {
      drive.unit = static_cast<unsigned>(dev[2] - 'a');
    }
    return;
  }
  if (bus != "ide") {
    drive.other_bus = bus.substr(0, 40);
    return;
  }
  const auto address = disk.child("address");
  if (attribute(address, "type") == "drive") {
    // libvirt's "bus" is the channel; a second controller would be a PCI card.
    const auto controller = number(address, address.attribute("controller").as_string("0"), 0, 255);
    drive.bus = static_cast<unsigned>(controller * 2 +
                                      number(address, address.attribute("bus").as_string("0"), 0, 255));
    drive.unit = static_cast<unsigned>(number(address, address.attribute("unit").as_string("0"), 0, 255));
  } else if (dev.size() == 3 && dev.starts_with("hd") && dev[2] >= 'a' && dev[2] <= 'd') {
    const auto index = static_cast<unsigned>(dev[2] - 'a');
    drive.bus = index / 2;
    drive.unit = index % 2;
  }
}

void LibvirtReader::read_disk_details(pugi::xml_node disk, ImportedDrive& drive) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kNotes = {{
      {"iotune", "Whistler does not limit the speed of disks: left out"},
      {"throttlefilters", "Whistler does not limit the speed of disks: left out"},
      {"shareable", "Whistler locks images for one machine: left out"},
      {"transient",
       "what the guest writes is kept: make an overlay with whistler img create -b to throw it away"},
      {"wwn", "Whistler's drives have no world wide name: left out"},
      {"auth", "Whistler does not log in to servers of disks: left out"},
      {"encryption",
       "Whistler does not open encrypted images in machines: convert it with whistler img first"},
      {"mirror", "a running copy job does not come along"},
  }};
  for (const auto& [name, text] : kNotes) {
    if (const auto found = disk.child(std::string(name).c_str())) {
      report_.note(fmt::format("line {}: disk {}", source_.line_of(found), drive.id),
                   fmt::format("{}: {}", name, text));
    }
  }
  if (disk.child("source").child("encryption")) {
    report_.note(drive.where, kNotes[6].second);
  }
  const auto block = attribute(disk.child("blockio"), "logical_block_size");
  if (!block.empty() && block != "512") {
    report_.note(drive.where, "its sectors have 512 bytes here: left out");
  }
  drive.read_only = !disk.child("readonly").empty();
  drive.serial = disk.child_value("serial");
  drive.model = disk.child_value("product");
  if (const auto chs = disk.child("geometry")) {
    drive.geometry = {.cylinders = static_cast<std::uint32_t>(number(chs, attribute(chs, "cyls"), 1, 65535)),
                      .heads = static_cast<std::uint32_t>(number(chs, attribute(chs, "heads"), 1, 16)),
                      .sectors = static_cast<std::uint32_t>(number(chs, attribute(chs, "secs"), 1, 255))};
    drive.translation = attribute(chs, "trans");
  }
}

// ---- the rest ----

void LibvirtReader::read_controller(pugi::xml_node node) {
  const auto type = attribute(node, "type");
  const auto model = attribute(node, "model");
  if (type == "ide") {
    machine_.piix4_ide = machine_.piix4_ide || model == "piix4";
  } else if (type == "usb" && model != "none" && !has_usb_note_) {
    // A domain has one unless it says otherwise, often as four functions of a card: one line does.
    has_usb_note_ = true;
    note(node, "this version has no USB: the guest sees no controller");
  } else if (type == "scsi" || type == "ccid") {
    note(node, fmt::format("Whistler has no {} controllers: left out", type));
  }
}

void LibvirtReader::read_interface(pugi::xml_node node) {
  const auto type = attribute(node, "type");
  const auto where = source_.place_of(node);
  read_boot_order(node, "network");
  ImportedCard card;
  card.model = attribute(node.child("model"), "type");
  if (card.model.empty()) {
    card.model = "rtl8139";  // libvirt's default for i440FX boards
  }
  card.mac = attribute(node.child("mac"), "address");
  if (type == "hostdev" || type == "vdpa") {
    report_.note(where, "Whistler passes no devices of the host to guests: left out");
    return;
  }
  machine_.add_card(std::move(card), where, report_);
  if (type != "user") {
    report_.note(where,
                 fmt::format("the connection to {} \"{}\" becomes the backend \"user\"", type.substr(0, 40),
                             attribute(node.child("source"), type == "bridge" ? "bridge" : "network")));
  }
}

void LibvirtReader::read_input(pugi::xml_node node) {
  const auto type = attribute(node, "type");
  const auto bus = attribute(node, "bus");
  const bool has_ps2 = type == "mouse" || type == "keyboard";
  if (has_ps2 && (bus == "ps2" || bus.empty())) {
    return;
  }
  note(node, fmt::format("this version has no {} {}: the guest has a PS/2 keyboard and mouse",
                         bus.empty() ? "USB" : bus.substr(0, 40), type.substr(0, 40)));
}

void LibvirtReader::read_graphics(pugi::xml_node node) {
  const auto type = attribute(node, "type");
  has_screen_ = true;
  if (type != "vnc") {
    // Somebody wants to see the guest.
    note(node, fmt::format("{} becomes VNC on 127.0.0.1: connect with any VNC viewer", type.substr(0, 40)));
    machine_.vnc = machine_.vnc ? machine_.vnc : ImportedVnc{};
    return;
  }
  ImportedVnc vnc;
  const auto listen = node.child("listen");
  const auto listen_type = attribute(listen, "type");
  if (node.attribute("socket") || listen_type == "socket") {
    note(node, "Whistler's VNC is on a port, not on a socket: it becomes 127.0.0.1");
  } else if (listen_type == "network") {
    note(listen, "Whistler knows no networks of libvirt's: VNC listens on 127.0.0.1");
  } else if (const auto address = attribute(listen, "address"); !address.empty()) {
    vnc.listen = address;
  } else if (const auto direct = attribute(node, "listen"); !direct.empty()) {
    vnc.listen = direct;
  }
  const auto port = attribute(node, "port");
  if (attribute(node, "autoport") != "yes" && !port.empty() && port != "-1") {
    vnc.port = static_cast<int>(number(node, port, 0, 65535));
  }
  vnc.password = node.attribute("passwd") && !attribute(node, "passwd").empty();
  vnc.websocket = !attribute(node, "websocket").empty();
  machine_.vnc = vnc;
}

void LibvirtReader::read_video(pugi::xml_node node) {
  if (++videos_ > 1) {
    note(node, "a machine has one screen: left out");
    return;
  }
  const auto model = node.child("model");
  const auto type = attribute(model, "type");
  machine_.vga = type != "none";
  if (type == "vga") {
    if (const auto kib = attribute(model, "vram"); !kib.empty()) {
      machine_.set_vram(number(model, kib, 1, 1 << 20) * kKiB);
    }
  } else if (machine_.vga) {
    note(model ? model : node,
         fmt::format("{} becomes the standard VGA: the guest may need its driver for another card",
                     type.empty() ? "the default card" : type.substr(0, 40)));
  }
}

void LibvirtReader::read_serial(pugi::xml_node node) {
  const auto type = attribute(node, "type");
  const auto source = node.child("source");
  if (node.child("log")) {
    note(node.child("log"), "Whistler keeps no copy of a serial port: left out");
  }
  ImportedSerial port{.backend = "none", .path = {}};
  if (type == "pty" || type == "stdio") {
    port.backend = type;
  } else if (type == "file" || (type == "unix" && attribute(source, "mode") != "connect")) {
    port = {.backend = std::string(type), .path = std::string(attribute(source, "path"))};
    if (port.path.empty()) {
      // libvirt would make one up.
      note(node, "has no path: it is connected to nothing");
      port.backend = "none";
    }
  } else if (type != "null") {
    note(node, fmt::format("a serial port on {} is connected to nothing: use pty, unix (mode bind) or file",
                           type.substr(0, 40)));
  }
  machine_.add_serial(std::move(port), source_.place_of(node), report_);
}

void LibvirtReader::read_console(pugi::xml_node node) {
  // A console on a serial port repeats a <serial>; where that is missing, it is the port.
  const auto target = attribute(node.child("target"), "type");
  if (!target.empty() && target != "serial") {
    note(node, fmt::format("Whistler has no {} consoles: left out", target.substr(0, 40)));
  } else if (!node.parent().child("serial") && machine_.serial.empty()) {
    read_serial(node);
  }
}

void LibvirtReader::read_channel(pugi::xml_node node) {
  const auto name = attribute(node.child("target"), "name");
  note(node, fmt::format("Whistler has no virtio serial ports: \"{}\" cannot be reached in the guest",
                         name.empty() ? attribute(node, "type") : name.substr(0, 60)));
}

void LibvirtReader::read_model_device(pugi::xml_node node) {
  if (const auto model = attribute(node, "model"); model != "none") {
    note(node, fmt::format("Whistler has no {}: left out", model.substr(0, 40)));
  }
}

}  // namespace whistler
