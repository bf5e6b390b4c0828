// Disks, CD-ROM and floppy drives of a QEMU command line.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/unique_fd.hpp"
#include "block/nbd/address.hpp"
#include "vmm/import/qemu_reader.hpp"

namespace whistler {
namespace {

constexpr std::string_view kOverlay =
    "snapshot: what the guest writes is kept: run it on an overlay, made with whistler img create -b, to "
    "throw it "
    "away";

/// What a file begins with, if it is here to look at.
std::optional<std::string> first_bytes(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return std::nullopt;  // to open a pipe or a device can have effects
  }
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!fd) {
    return std::nullopt;
  }
  std::array<char, 8> bytes{};
  const auto got = ::pread(fd.get(), bytes.data(), bytes.size(), 0);
  return std::string(bytes.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
}

/// QEMU's names for ways to reach a file. Empty for what Whistler cannot open.
std::string plain_path(std::string_view file) {
  if (nbd::is_target(std::string(file))) {
    return std::string(file);
  }
  for (const std::string_view scheme : {"file:", "host_device:", "host_cdrom:"}) {
    if (file.starts_with(scheme)) {
      return std::string(file.substr(scheme.size()));
    }
  }
  const auto colon = file.find(':');
  const bool scheme = colon != std::string_view::npos && file.find('/') > colon;
  return scheme ? "" : std::string(file);
}

/// The one name for a way to cache; empty if nothing was said.
std::string cache_name(bool said, bool direct, bool no_flush, bool writeback) {
  if (!said) {
    return {};
  }
  if (no_flush) {
    return "unsafe";
  }
  if (direct) {
    return writeback ? "none" : "directsync";
  }
  return writeback ? "writeback" : "writethrough";
}

void take_harmless(QemuSettings& settings) {
  for (const auto* key : {"id",
                          "node-name",
                          "aio",
                          "discard",
                          "detect-zeroes",
                          "werror",
                          "rerror",
                          "addr",
                          "auto-read-only",
                          "iothread",
                          "physical_block_size",
                          "min_io_size",
                          "opt_io_size",
                          "share-rw",
                          "queues",
                          "num-queues",
                          "driver",
                          "locking",
                          "file.locking",
                          "file.aio",
                          "file.node-name",
                          "file.auto-read-only",
                          "file.discard",
                          "file.driver",
                          "backing",
                          "device_id",
                          "scsi",
                          "channel",
                          "scsi-id",
                          "lun",
                          "removable",
                          "read-zeroes",
                          "copy-on-read",
                          "l2-cache-size",
                          "cache-size",
                          "lazy-refcounts",
                          "discard_granularity",
                          "event_idx",
                          "write-zeroes",
                          "config-wce"}) {
    static_cast<void>(settings.take(key));
  }
}

}  // namespace

bool QemuReader::is_taken(unsigned index) const {
  return std::ranges::any_of(machine_.drives, [&](const ImportedDrive& drive) {
    return drive.interface == DriveInterface::kIde && drive.bus && *drive.bus * 2 + *drive.unit == index;
  });
}

void QemuReader::add_on_ide(ImportedDrive drive, std::optional<unsigned> index) {
  // Where none is given QEMU takes the next free one, for CDs too.
  unsigned place = index.value_or(0);
  while (!index && is_taken(place)) {
    ++place;
  }
  drive.bus = place / 2;
  drive.unit = place % 2;
  machine_.drives.push_back(std::move(drive));
}

bool QemuReader::settle_format(ImportedDrive& drive) {
  const auto path = plain_path(drive.file);
  if (path.empty() && !drive.file.empty()) {
    report_.note(drive.where,
                 fmt::format("left out: {} is neither a file nor a block device nor an NBD server",
                             drive.file.substr(0, 200)));
    return false;
  }
  drive.file = path;
  if (drive.format == "host_device" || drive.format == "host_cdrom" || drive.format == "file" ||
      (drive.format.empty() && drive.media == Media::kCdrom) ||
      (drive.format.empty() && drive.interface == DriveInterface::kFloppy)) {
    drive.format = "raw";
  }
  if (drive.format.empty() && !drive.file.empty()) {
    // QEMU looks at the image at each start, where a guest may have written what it likes. Here a person sees
    // what was found, once. A qcow2 image taken for raw would be destroyed.
    const auto begin = first_bytes(drive.file);
    const bool named_qcow2 = drive.file.ends_with(".qcow2") || drive.file.ends_with(".qcow");
    if (begin) {
      drive.format = begin->starts_with("QFI\xfb") ? "qcow2" : begin->starts_with("KDMV") ? "vmdk" : "raw";
    } else {
      drive.format = named_qcow2 ? "qcow2" : "raw";
    }
    report_.note(
        drive.where,
        fmt::format("no format is given: {} by {}; if that is wrong, correct \"format\" before the guest "
                    "writes to the disk",
                    drive.format, begin ? "its first bytes" : "its name, for it is not here to look at"));
  }
  if (!drive.file.empty() && drive.format != "raw" && drive.format != "qcow2") {
    report_.note(
        drive.where,
        fmt::format("left out: {} is {}, and machines start from raw and qcow2 only; first run: whistler img "
                    "convert -O qcow2 {} NEW.qcow2",
                    drive.file, drive.format.substr(0, 40), drive.file));
    return false;
  }
  if (drive.file.empty() && drive.media == Media::kDisk) {
    report_.note(drive.where, "left out: it names no image");
    return false;
  }
  return true;
}

void QemuReader::add_image(std::string_view file, unsigned index, Media media) {
  ImportedDrive drive;
  drive.where = where_;
  drive.media = media;
  drive.file = file;
  if (settle_format(drive)) {
    add_on_ide(std::move(drive), index);
  }
}

void QemuReader::add_floppy(std::string_view file, unsigned unit) {
  ImportedDrive drive;
  drive.where = where_;
  drive.interface = DriveInterface::kFloppy;
  drive.file = file;
  drive.unit = unit;
  if (settle_format(drive)) {
    machine_.drives.push_back(std::move(drive));
  }
}

void QemuReader::read_identity(QemuSettings& settings, ImportedDrive& drive) {
  const auto put = [&](const char* key, std::string& to) {
    if (settings.has(key)) {
      to = settings.take(key);
    }
  };
  put("serial", drive.serial);
  put("model", drive.model);
  put("ver", drive.version);
  const auto cylinders = settings.take("cyls");
  const auto heads = settings.take("heads");
  const auto sectors = settings.take("secs");
  if (!cylinders.empty() && !heads.empty() && !sectors.empty()) {
    drive.geometry = {.cylinders = static_cast<std::uint32_t>(number(drive.where, cylinders, 1, 65535)),
                      .heads = static_cast<std::uint32_t>(number(drive.where, heads, 1, 16)),
                      .sectors = static_cast<std::uint32_t>(number(drive.where, sectors, 1, 255))};
  }
  for (const auto* key : {"trans", "bios-chs-trans"}) {
    if (settings.has(key)) {
      drive.translation = settings.take(key);
    }
  }
  if (const auto size = settings.take("logical_block_size"); !size.empty() && size != "512") {
    report_.note(drive.where, "its sectors have 512 bytes here: left out");
  }
}

std::optional<ImportedDrive> QemuReader::drive_of(QemuSettings& settings, std::string where) {
  ImportedDrive drive;
  drive.where = std::move(where);
  drive.id = settings.take("id");
  drive.media = settings.take("media") == "cdrom" ? Media::kCdrom : Media::kDisk;
  const auto short_name = settings.take("file");
  const auto long_name = settings.take("file.filename");
  drive.file = short_name.empty() ? long_name : short_name;
  const auto format = settings.take("format");
  drive.format = format.empty() ? settings.take("driver") : format;
  drive.read_only = settings.flag("readonly", settings.flag("read-only", false));
  if (settings.flag("snapshot", false)) {
    report_.note(drive.where, kOverlay);
  }
  const auto cache = settings.take("cache");
  constexpr std::array<std::string_view, 5> kModes = {"none", "writeback", "writethrough", "directsync",
                                                      "unsafe"};
  if (std::ranges::find(kModes, cache) != kModes.end()) {
    drive.cache = cache;
  } else if (!cache.empty() && cache != "off") {
    report_.error(drive.where, fmt::format("cache \"{}\" is not one of {}", cache.substr(0, 40),
                                           "none, writeback, writethrough, directsync, unsafe"));
  } else if (cache == "off") {
    drive.cache = "none";
  } else {
    const bool said =
        settings.has("cache.direct") || settings.has("cache.no-flush") || settings.has("cache.writeback");
    const bool direct = settings.flag("cache.direct", false);
    const bool no_flush = settings.flag("cache.no-flush", false);
    drive.cache = cache_name(said, direct, no_flush, settings.flag("cache.writeback", true));
  }
  read_identity(settings, drive);
  take_harmless(settings);
  note_left(settings, drive.where);
  return report_.failed() ? std::nullopt : std::optional(drive);
}

void QemuReader::read_drive(std::string_view value) {
  auto settings = settings_of(value, "file");
  if (!settings) {
    return;
  }
  const auto interface = settings->take("if");
  const auto index_text = settings->take("index");
  const auto bus = settings->take("bus");
  const auto unit = settings->take("unit");
  if (interface == "none") {
    const auto id = settings->take("id");
    if (id.empty()) {
      error("if=none needs an id, so that a -device can have it");
      return;
    }
    free_drives_.insert_or_assign(id, *settings);
    return;
  }
  if (interface == "pflash") {
    note("Whistler starts SeaBIOS: a guest that was installed with UEFI does not start");
    return;
  }
  auto drive = drive_of(*settings, where_);
  if (!drive) {
    return;
  }
  std::optional<unsigned> index;
  if (!index_text.empty()) {
    index = static_cast<unsigned>(number(where_, index_text, 0, 255));
  } else if (!bus.empty() || !unit.empty()) {
    index = static_cast<unsigned>(number(where_, bus.empty() ? "0" : bus, 0, 127) * 2 +
                                  number(where_, unit.empty() ? "0" : unit, 0, 1));
  }
  if (interface == "floppy") {
    drive->interface = DriveInterface::kFloppy;
    drive->media = Media::kDisk;
    drive->unit = index;
  } else if (!interface.empty() && interface != "ide") {
    drive->other_bus = interface.substr(0, 40);
  }
  if (report_.failed() || !settle_format(*drive)) {
    return;
  }
  if (drive->interface == DriveInterface::kFloppy || !drive->other_bus.empty()) {
    machine_.drives.push_back(std::move(*drive));
  } else {
    add_on_ide(std::move(*drive), index);
  }
}

void QemuReader::read_blockdev(std::string_view value) {
  if (auto settings = settings_of(value, "driver")) {
    blockdevs_.insert_or_assign(settings->take("node-name"), *settings);
  }
}

std::optional<ImportedDrive> QemuReader::image_of_node(const std::string& name, const std::string& where) {
  // From the format's node down to the file's. A ring of nodes ends at the limit.
  constexpr int kMostNodes = 8;
  ImportedDrive drive;
  drive.where = where;
  drive.id = name;
  bool said = false;
  bool direct = false;
  bool no_flush = false;
  std::string at = name;
  for (int i = 0; i < kMostNodes; ++i) {
    const auto found = blockdevs_.find(at);
    if (found == blockdevs_.end()) {
      report_.error(where, fmt::format("there is no -drive or -blockdev \"{}\"", at.substr(0, 80)));
      return std::nullopt;
    }
    auto& node = found->second;
    const auto driver = node.take("driver");
    said = said || node.has("cache.direct") || node.has("cache.no-flush");
    direct = direct || node.flag("cache.direct", false);
    no_flush = no_flush || node.flag("cache.no-flush", false);
    drive.read_only = drive.read_only || node.flag("read-only", false);
    const auto inner = node.take("file.filename");
    const auto direct_name = node.take("filename");
    const auto below = node.take("file");
    const bool is_file = driver == "file" || driver == "host_device" || driver == "host_cdrom";
    if (driver == "nbd" || node.take("file.driver") == "nbd") {
      const auto part = [&](const char* key) {
        const auto own = node.take(key);
        return own.empty() ? node.take(std::string("file.") + key) : own;
      };
      const auto socket = part("server.path");
      drive.file = socket.empty() ? fmt::format("nbd://{}:{}/{}", part("server.host"), part("server.port"),
                                                part("export"))
                                  : fmt::format("nbd+unix:///{}?socket={}", part("export"), socket);
    } else {
      drive.file = is_file ? direct_name : inner;
    }
    if (!is_file && driver != "nbd" && drive.format.empty()) {
      drive.format = driver;
    }
    if (!drive.file.empty() || below.empty()) {
      break;
    }
    at = below;
  }
  if (drive.format.empty()) {
    drive.format = "raw";  // a file's node shows the file as it is
  }
  drive.cache = cache_name(said, direct, no_flush, true);
  return drive;
}

void QemuReader::build_disk(PendingDevice& device, std::string_view driver) {
  auto& settings = device.settings;
  const bool is_cd = driver.find("-cd") != std::string_view::npos;
  const bool on_ide = driver.starts_with("ide-");
  const auto id = settings.take("id");
  const auto name = settings.take("drive");
  std::optional<ImportedDrive> drive;
  if (const auto found = free_drives_.find(name); !name.empty() && found != free_drives_.end()) {
    found->second.set("id", name);
    drive = drive_of(found->second, device.where);
    free_drives_.erase(found);
  } else if (!name.empty()) {
    drive = image_of_node(name, device.where);
  } else {
    drive = ImportedDrive{};
    drive->where = device.where;
  }
  if (!drive) {
    return;
  }
  drive->media = is_cd ? Media::kCdrom : drive->media;
  drive->id = id.empty() ? drive->id : id;
  if (settings.has("write-cache") && settings.take("write-cache") == "off") {
    drive->cache = drive->cache == "none" || drive->cache == "directsync" ? "directsync" : "writethrough";
  }
  if (const auto index = settings.take("bootindex"); !index.empty() && index != "-1") {
    boot_indexes_.emplace(number(device.where, index, 0, 65535),
                          drive->media == Media::kCdrom ? "cdrom" : "disk");
  }
  const auto bus = settings.take("bus");
  const auto unit = settings.take("unit");
  read_identity(settings, *drive);
  take_harmless(settings);
  note_left(settings, device.where);
  if (report_.failed() || !settle_format(*drive)) {
    return;
  }
  if (!on_ide || (!bus.empty() && !bus.starts_with("ide."))) {
    drive->other_bus = on_ide ? "SATA" : std::string(driver.substr(0, driver.find('-')));
    machine_.drives.push_back(std::move(*drive));
    return;
  }
  std::optional<unsigned> index;
  if (!bus.empty() || !unit.empty()) {
    const auto channel = number(device.where, bus.empty() ? "0" : bus.substr(4), 0, 127);
    const auto first = static_cast<unsigned>(channel * 2);
    // Without a unit QEMU takes the master, or the slave where there is a master.
    index = unit.empty() ? (is_taken(first) ? first + 1 : first)
                         : first + static_cast<unsigned>(number(device.where, unit, 0, 1));
  }
  add_on_ide(std::move(*drive), index);
}

void QemuReader::build_floppy(PendingDevice& device) {
  const auto name = device.settings.take("drive");
  const auto unit = device.settings.take("unit");
  const auto found = free_drives_.find(name);
  auto drive = found != free_drives_.end() ? drive_of(found->second, device.where)
               : name.empty()              ? std::optional(ImportedDrive{})
                                           : image_of_node(name, device.where);
  if (found != free_drives_.end()) {
    free_drives_.erase(found);
  }
  if (!drive) {
    return;
  }
  drive->where = device.where;
  drive->interface = DriveInterface::kFloppy;
  drive->media = Media::kDisk;
  if (!unit.empty()) {
    drive->unit = static_cast<unsigned>(number(device.where, unit, 0, 255));
  }
  if (settle_format(*drive)) {
    machine_.drives.push_back(std::move(*drive));
  }
}

}  // namespace whistler
