#include "vmm/config/description.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <set>
#include <tuple>

#include "block/nbd/address.hpp"
#include "vmm/config/json_document.hpp"
#include "vmm/config/json_reader.hpp"
#include "vmm/kvm/cpuid.hpp"

namespace whistler {
namespace {

constexpr std::uint64_t kLargestFile = 64 * kKiB;  // the parser's time grows with the square
constexpr std::uint64_t kLargestMemory = 1024 * kGiB;
constexpr unsigned kMostCores = 8;
constexpr std::size_t kMostDrives = 6;  // four IDE units, two floppies
constexpr std::size_t kMostSerials = 2;
constexpr std::size_t kMostNetworkCards = 8;
constexpr std::int64_t kLatestTime = 253'402'300'799;  // 9999-12-31: what the RTC's two-digit century can say

// ATA/ATAPI-6, 7.17.7: the identify strings.
constexpr std::size_t kNameLength = 64;
constexpr std::size_t kSerialLength = 20;
constexpr std::size_t kModelLength = 40;
constexpr std::size_t kVersionLength = 8;

std::optional<std::array<std::uint8_t, 16>> parse_uuid(std::string_view text) {
  std::array<std::uint8_t, 16> uuid{};
  std::size_t digits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash) {
      if (text[i] != '-') {
        return std::nullopt;
      }
      continue;
    }
    std::uint8_t nibble = 0;
    const auto [end, error] = std::from_chars(&text[i], &text[i] + 1, nibble, 16);
    if (error != std::errc() || digits >= 32) {
      return std::nullopt;
    }
    uuid[digits / 2] = static_cast<std::uint8_t>(uuid[digits / 2] << 4 | nibble);
    ++digits;
  }
  return digits == 32 && text.size() == 36 ? std::optional(uuid) : std::nullopt;
}

/// Reads the sections of one document.
class Reader {
 public:
  Reader(Description& to, JsonErrors& errors) : to_(to), errors_(errors) {}

  void read(JsonObject root) {
    static_cast<void>(root.has("$schema"));  // for editors
    root.text("name", to_.name);
    if (to_.name.size() > kNameLength) {
      root.error("name", fmt::format("is longer than {} bytes", kNameLength));
    }
    std::string uuid;
    root.text("uuid", uuid);
    if (!uuid.empty()) {
      if (const auto parsed = parse_uuid(uuid)) {
        to_.uuid = *parsed;
      } else {
        root.error("uuid", "is not of the form 12345678-1234-1234-1234-123456789abc");
      }
    }
    read_machine(root.object("machine"));
    read_cpu(root.object("cpu"));
    root.size("memory", kMiB, kLargestMemory, to_.memory);
    root.need("memory");
    if (to_.memory % kMiB != 0) {
      root.error("memory", "is not a whole number of MiB");
    }
    read_memory_options(root.object("memory_options"));
    read_clock(root.object("clock"));
    read_boot(root.object("boot"));
    read_firmware(root.object("firmware"));
    for (const auto& [value, path] : root.array("drives", kMostDrives)) {
      read_drive(JsonObject(*value, path, errors_));
    }
    read_display(root.object("display"));
    if (root.has("vnc")) {
      read_vnc(root.object("vnc"));
    }
    for (const auto& [value, path] : root.array("serial", kMostSerials)) {
      read_serial(JsonObject(*value, path, errors_));
    }
    for (const auto& [value, path] : root.array("network", kMostNetworkCards)) {
      read_network(JsonObject(*value, path, errors_));
    }
    read_debug(root.object("debug"));
    auto monitor = root.object("monitor");
    monitor.text("socket", to_.monitor_socket);
    monitor.finish();
    auto metrics = root.object("metrics");
    path(metrics, "socket", to_.metrics_socket);
    metrics.finish();
    auto on = root.object("on");
    const std::initializer_list<std::pair<std::string_view, OnEvent>> kChoices = {{"reset", OnEvent::kReset},
                                                                                  {"exit", OnEvent::kExit}};
    on.choice("reboot", kChoices, to_.on.reboot);
    on.choice("poweroff", {{"exit", OnEvent::kExit}}, to_.on.poweroff);
    on.choice("triple_fault", kChoices, to_.on.triple_fault);
    on.finish();
    root.finish();
  }

 private:
  void read_machine(JsonObject section) {
    bool only = true;
    section.choice("type", {{"pc-i440fx", true}, {"pc", true}}, only);
    section.boolean("acpi", to_.machine.acpi);
    section.boolean("apic", to_.machine.apic);
    section.choice("ide", {{"piix3", IdeChip::kPiix3}, {"piix4", IdeChip::kPiix4}}, to_.machine.ide);
    section.finish();
  }

  void read_cpu(JsonObject section) {
    bool only = true;
    section.choice("model", {{"host-passthrough", true}}, only);
    section.number("cores", 1, kMostCores, to_.cpu.cores);
    auto features = section.object("features");
    const auto names = known_features();
    for (const auto& [key, value] : features.value().items()) {
      if (std::ranges::find(names, key) == names.end()) {
        continue;  // finish() below reports it with the nearest known name
      }
      bool on = true;
      features.boolean(key, on);
      to_.cpu.features[key] = on;
    }
    for (const auto& name : names) {
      static_cast<void>(features.has(name));
    }
    features.finish();
    section.finish();
  }

  static std::vector<std::string> known_features() {
    const auto names = known_cpu_features();
    return {names.begin(), names.end()};
  }

  void read_memory_options(JsonObject section) {
    section.boolean("huge_pages", to_.memory_options.huge_pages);
    section.boolean("merge", to_.memory_options.merge);
    section.finish();
  }

  void read_clock(JsonObject section) {
    section.choice("base", {{"localtime", true}, {"utc", false}}, to_.clock.local_time);
    if (section.has("start")) {
      std::int64_t start = 0;
      section.number("start", 0, kLatestTime, start);
      to_.clock.start = start;
    }
    section.finish();
  }

  void read_boot(JsonObject section) {
    read_boot_order(section, "order", to_.boot.order);
    read_boot_order(section, "once", to_.boot.once);
    section.boolean("floppy_check", to_.boot.floppy_check);
    section.number("reboot_timeout", -1, 65535, to_.boot.reboot_timeout);
    section.boolean("menu", to_.boot.menu);
    section.number("menu_timeout", 0, 65535, to_.boot.menu_timeout);
    path(section, "kernel", to_.boot.kernel);
    path(section, "initrd", to_.boot.initrd);
    section.text("cmdline", to_.boot.cmdline);
    if (to_.boot.kernel.empty() && (!to_.boot.initrd.empty() || !to_.boot.cmdline.empty())) {
      section.error(to_.boot.initrd.empty() ? "cmdline" : "initrd", "is of no use without boot.kernel");
    }
    section.finish();
  }

  void read_boot_order(JsonObject& section, std::string_view key, std::vector<std::string>& to) {
    static const std::set<std::string, std::less<>> kKinds = {"disk", "cdrom", "floppy", "network"};
    if (section.has(key)) {
      to.clear();
    }
    for (const auto& [value, path] : section.array(key, 4)) {
      if (!value->is_string() || !kKinds.contains(value->get_ref<const std::string&>())) {
        errors_.add(path, "must be one of \"disk\", \"cdrom\", \"floppy\", \"network\"");
      } else {
        to.push_back(value->get<std::string>());
      }
    }
  }

  void read_firmware(JsonObject section) {
    path(section, "bios", to_.firmware.bios);
    path(section, "vga_bios", to_.firmware.vga_bios);
    section.finish();
  }

  void read_drive(JsonObject section) {
    DriveDescription drive;
    section.text("id", drive.id);
    section.choice("interface", {{"ide", DriveInterface::kIde}, {"floppy", DriveInterface::kFloppy}},
                   drive.interface);
    section.number("bus", 0, 1, drive.bus);
    section.number("unit", 0, 1, drive.unit);
    section.choice("media", {{"disk", Media::kDisk}, {"cdrom", Media::kCdrom}}, drive.media);
    section.text("file", drive.file);
    drive.file = nbd::is_target(drive.file) ? drive.file : absolute(drive.file);
    section.choice("format", {{"raw", std::string("raw")}, {"qcow2", std::string("qcow2")}}, drive.format);
    section.choice("cache",
                   {{"writeback", CacheMode::kWriteback},
                    {"none", CacheMode::kNone},
                    {"writethrough", CacheMode::kWritethrough},
                    {"directsync", CacheMode::kDirectsync},
                    {"unsafe", CacheMode::kUnsafe}},
                   drive.cache);
    const bool optical = drive.media == Media::kCdrom;
    drive.read_only = optical;
    section.boolean("read_only", drive.read_only);
    section.boolean("remote_backing", drive.remote_backing);
    path(section, "password_file", drive.password_file);
    section.text("serial", drive.serial);
    section.text("model", drive.model);
    section.text("version", drive.version);
    for (const auto& [key, text, room] :
         {std::tuple("serial", &drive.serial, kSerialLength), std::tuple("model", &drive.model, kModelLength),
          std::tuple("version", &drive.version, kVersionLength)}) {
      if (text->size() > room) {
        section.error(key, fmt::format("is too long: a drive has room for {} characters", room));
      }
      if (!std::ranges::all_of(*text, [](char c) { return c >= ' ' && c <= '~'; })) {
        section.error(key, "has characters other than printable ASCII");
      }
    }
    if (section.has("geometry")) {
      Geometry geometry{1024, 16, 63};
      auto chs = section.object("geometry");
      chs.number("cylinders", 1, 65535, geometry.cylinders);
      chs.number("heads", 1, 16, geometry.heads);
      chs.number("sectors", 1, 255, geometry.sectors);
      chs.choice("translation",
                 {{"auto", Translation::kAuto},
                  {"none", Translation::kNone},
                  {"lba", Translation::kLba},
                  {"large", Translation::kLarge},
                  {"rechs", Translation::kRechs}},
                 drive.translation);
      chs.finish();
      drive.geometry = geometry;
    }
    if (section.has("bios_geometry")) {
      Geometry geometry;
      auto chs = section.object("bios_geometry");
      for (const auto& [key, to] :
           {std::pair("cylinders", &geometry.cylinders), std::pair("heads", &geometry.heads),
            std::pair("sectors", &geometry.sectors)}) {
        chs.number(key, 0, 65535, *to);
      }
      chs.finish();
      drive.bios_geometry = geometry;
    }
    if (drive.file.empty() && !optical) {
      section.need("file", "a disk needs its image");
      section.error("file", "is empty: a disk needs its image");
    }
    if (!drive.file.empty() && drive.format.empty()) {
      section.need("format");
    }
    if (optical && !drive.read_only) {
      section.error("read_only", "cannot be false for a CD-ROM");
    }
    for (const auto& other : to_.drives) {
      if (other.interface == drive.interface && other.bus == drive.bus && other.unit == drive.unit) {
        section.error("unit", fmt::format("bus {} unit {} is taken by the drive \"{}\"", drive.bus,
                                          drive.unit, other.id));
      }
      if (other.id == drive.id && !drive.id.empty()) {
        section.error("id", fmt::format("\"{}\" is the name of another drive", drive.id));
      }
    }
    if (drive.id.empty()) {
      drive.id = fmt::format("{}{}", optical ? "cd" : "hd", to_.drives.size());
    }
    section.finish();
    if (drive.interface == DriveInterface::kFloppy) {
      leave_out(section.path(), "no floppy drives yet: the guest sees none");
      return;
    }
    to_.drives.push_back(std::move(drive));
  }

  void read_network(JsonObject section) {
    std::string text;
    bool flag = false;
    for (const std::string_view key : {"model", "backend", "mac"}) {
      section.text(key, text);
    }
    section.boolean("restrict", flag);
    section.finish();
    leave_out(section.path(), "no network cards yet: the guest sees none");
  }

  void leave_out(std::string_view path, std::string_view why) {
    to_.left_out.push_back(fmt::format("{}: {}: this version has {}", to_.source.string(), path, why));
  }

  void read_display(JsonObject section) {
    section.choice("vga", {{"std", true}, {"none", false}}, to_.display.vga);
    section.size("vram", kMiB, 256 * kMiB, to_.display.vram);
    if ((to_.display.vram & (to_.display.vram - 1)) != 0) {
      section.error("vram", "is not a power of two");
    }
    section.finish();
  }

  void read_vnc(JsonObject section) {
    VncDescription vnc;
    section.text("listen", vnc.listen);
    section.number("port", -1, 65535, vnc.port);
    path(section, "password_file", vnc.password_file);
    bool websocket = false;
    section.boolean("websocket", websocket);
    if (websocket) {
      leave_out("vnc.websocket", "no WebSocket yet: browsers cannot connect");
    }
    section.finish();
    to_.vnc = std::move(vnc);
  }

  void read_serial(JsonObject section) {
    using Backend = SerialDescription::Backend;
    SerialDescription serial;
    section.choice("backend",
                   {{"none", Backend::kNull},
                    {"stdio", Backend::kStdio},
                    {"file", Backend::kFile},
                    {"pty", Backend::kPty},
                    {"unix", Backend::kUnix}},
                   serial.backend);
    section.need("backend");
    path(section, "path", serial.path);
    const bool needs_path = serial.backend == Backend::kFile || serial.backend == Backend::kUnix;
    if (needs_path && serial.path.empty()) {
      section.need("path");
    }
    for (const auto& other : to_.serial) {
      if (serial.backend == Backend::kStdio && other.backend == Backend::kStdio) {
        section.error("backend", "\"stdio\" is taken by another serial port");
      }
    }
    section.finish();
    to_.serial.push_back(std::move(serial));
  }

  void read_debug(JsonObject section) {
    section.text("console", to_.debug.console);
    if (to_.debug.console.starts_with("file:")) {
      to_.debug.console = "file:" + absolute(to_.debug.console.substr(5));
    } else if (!to_.debug.console.empty() && to_.debug.console != "stdio") {
      section.error("console", "must be \"stdio\" or \"file:PATH\"");
    }
    if (section.has("exit_port")) {
      std::string text;
      std::int64_t port = -1;
      if (section.value().at("exit_port").is_string()) {
        section.text("exit_port", text);
        const bool hex = text.starts_with("0x");
        const auto digits = std::string_view(text).substr(hex ? 2 : 0);
        const auto [end, error] =
            std::from_chars(digits.data(), digits.data() + digits.size(), port, hex ? 16 : 10);
        if (error != std::errc() || end != digits.data() + digits.size()) {
          port = -1;
        }
      } else {
        section.number("exit_port", 1, 0xFFFF, port);
      }
      if (port < 1 || port > 0xFFFF) {
        section.error("exit_port", "is not a port number like \"0xf4\"");
      }
      to_.debug.exit_port = static_cast<std::uint16_t>(port);
    }
    section.boolean("testdev", to_.debug.testdev);
    section.finish();
  }

  std::string absolute(const std::string& file) const {
    return file.empty()
               ? file
               : (std::filesystem::absolute(to_.source).parent_path() / file).lexically_normal().string();
  }
  void path(JsonObject& section, std::string_view key, std::string& to) {
    section.text(key, to);
    to = absolute(to);
  }

  Description& to_;
  JsonErrors& errors_;
};

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (unit.starts_with(' ')) {
    unit.remove_prefix(1);
  }
  if (unit.ends_with("iB")) {
    unit.remove_suffix(2);
  } else if (unit.size() > 1 && unit.ends_with('B')) {
    unit.remove_suffix(1);
  }
  constexpr std::string_view kUnits = "KMGT";
  unsigned shift = 0;
  if (unit.size() == 1) {
    const auto at = kUnits.find(static_cast<char>(unit[0] & ~0x20));
    shift = at == std::string_view::npos ? 64 : static_cast<unsigned>(at + 1) * 10;
  }
  const bool is_unit = unit.empty() || unit == "B" || (unit.size() == 1 && shift < 64);
  if (unit == "B") {
    shift = 0;
  }
  if (error != std::errc() || !is_unit || (shift != 0 && number > (UINT64_MAX >> shift))) {
    return fail(ErrorCode::kInvalid,
                fmt::format("\"{}\" is not a size like \"1024M\" or a number of bytes", text.substr(0, 40)));
  }
  return number << shift;
}

Result<Description> parse_description(std::string_view text, const std::filesystem::path& source,
                                      const std::vector<Override>& overrides) {
  auto document = parse_json(text);
  if (!document) {
    return std::unexpected(document.error().within(source.string()));
  }
  for (const auto& change : overrides) {
    if (auto done = apply_override(*document, change); !done) {
      return std::unexpected(done.error());
    }
  }
  Description description;
  description.source = source;
  JsonErrors errors;
  Reader(description, errors).read(JsonObject(*document, "", errors));
  if (errors.first()) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: {}", source.string(), *errors.first()));
  }
  if (description.name.empty()) {
    description.name = source.stem().string();
  }
  return description;
}

Result<Description> load_description(const std::filesystem::path& file,
                                     const std::vector<Override>& overrides) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (error || !std::filesystem::exists(status)) {
    return fail(
        ErrorCode::kNotFound,
        fmt::format("{}: no such file; give the path of a machine description (examples are in configs/)",
                    file.string()));
  }
  if (!std::filesystem::is_regular_file(status)) {
    return fail(
        ErrorCode::kInvalid,
        fmt::format("{}: is not a regular file; a machine description is a JSON file", file.string()));
  }
  std::ifstream stream(file, std::ios::binary);
  std::string text(kLargestFile + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  if (!stream.eof() && !stream) {
    return fail(ErrorCode::kPermission, fmt::format("{}: cannot be read", file.string()));
  }
  if (text.empty() || text.size() > kLargestFile) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: {}", file.string(),
                            text.empty() ? "is empty or cannot be read"
                                         : "is larger than 64 KiB; that is no machine description"));
  }
  return parse_description(text, file, overrides);
}

}  // namespace whistler
