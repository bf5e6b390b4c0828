#include "vmm/import/imported_machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "block/nbd/address.hpp"
#include "vmm/kvm/cpuid.hpp"

namespace whistler {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostNotes = 100;
constexpr std::size_t kNameLength = 64;
constexpr std::size_t kMostCards = 8;
constexpr std::size_t kMostSerials = 2;
constexpr std::string_view kPasswordFile = "vnc.pass";

// The names libvirt, QEMU and the processor manuals have for features that Whistler calls otherwise.
constexpr std::array<std::pair<std::string_view, std::string_view>, 12> kFeatureNames = {{
    {"pni", "sse3"},
    {"pclmuldq", "pclmulqdq"},
    {"sse4-1", "sse4.1"},
    {"sse4-2", "sse4.2"},
    {"sse4_1", "sse4.1"},
    {"sse4_2", "sse4.2"},
    {"xd", "nx"},
    {"i64", "lm"},
    {"clfsh", "clflush"},
    {"ffxsr", "fxsr-opt"},
    {"kvm_pv_eoi", "kvm-pv-eoi"},
    {"kvm_steal_time", "kvm-steal-time"},
}};

struct Place {
  unsigned bus = 0, unit = 0;
  bool operator==(const Place&) const = default;
};

/// Disks go where a PC looks for its first disk, CD-ROM drives where it looks for its CD.
constexpr std::array<Place, 4> kDiskPlaces = {{{0, 0}, {0, 1}, {1, 0}, {1, 1}}};
constexpr std::array<Place, 4> kCdPlaces = {{{1, 0}, {1, 1}, {0, 1}, {0, 0}}};

class Placer {
 public:
  explicit Placer(ImportReport& report) : report_(report) {}

  std::vector<ImportedDrive> place(std::vector<ImportedDrive> drives) {
    // Those with a place of their own come first, whatever the order in the source.
    for (auto& drive : drives) {
      if (drive.interface == DriveInterface::kFloppy) {
        place_floppy(drive);
      } else if (drive.bus && drive.unit) {
        keep_place(drive);
      }
    }
    for (auto& drive : drives) {
      if (drive.interface == DriveInterface::kIde && !drive.bus) {
        find_place(drive);
      }
    }
    std::erase_if(drives, [](const ImportedDrive& drive) { return !drive.bus || !drive.unit; });
    std::ranges::sort(drives, {}, [](const ImportedDrive& drive) {
      return std::tuple(drive.interface, *drive.bus, *drive.unit);
    });
    name_all(drives);
    return drives;
  }

 private:
  [[nodiscard]] bool is_free(Place place) const { return std::ranges::find(taken_, place) == taken_.end(); }

  void keep_place(ImportedDrive& drive) {
    const Place place{*drive.bus, *drive.unit};
    if (place.bus <= 1 && place.unit <= 1 && is_free(place)) {
      taken_.push_back(place);
      return;
    }
    report_.note(drive.where,
                 fmt::format("IDE bus {} unit {} {}: it gets another place", place.bus, place.unit,
                             place.bus > 1 || place.unit > 1 ? "does not exist" : "is taken"));
    drive.bus.reset();
  }

  void find_place(ImportedDrive& drive) {
    const auto& places = drive.media == Media::kCdrom ? kCdPlaces : kDiskPlaces;
    const auto* place = std::ranges::find_if(places, [&](Place p) { return is_free(p); });
    if (place == places.end()) {
      report_.note(drive.where, "left out: the four places of IDE are taken");
      return;
    }
    taken_.push_back(*place);
    drive.bus = place->bus;
    drive.unit = place->unit;
    if (!drive.other_bus.empty() && drive.media == Media::kDisk) {
      report_.note(
          drive.where,
          fmt::format("is on {}, and Whistler has IDE only: it becomes IDE bus {} unit {}; a Windows "
                      "that starts from it needs its IDE driver switched on first",
                      drive.other_bus, place->bus, place->unit));
    } else if (!drive.other_bus.empty()) {
      report_.note(drive.where, fmt::format("is on {}: it becomes IDE bus {} unit {}", drive.other_bus,
                                            place->bus, place->unit));
    }
  }

  void place_floppy(ImportedDrive& drive) {
    const unsigned unit = drive.unit.value_or(floppies_[0] ? 1 : 0);
    if (unit > 1 || floppies_[unit]) {
      report_.note(drive.where, "left out: there are two floppy drives at most");
      drive.unit.reset();
      return;
    }
    floppies_[unit] = true;
    drive.bus = 0;
    drive.unit = unit;
    report_.note(drive.where,
                 "is in the description, but this version has no floppy drives: the guest sees none");
  }

  static void name_all(std::vector<ImportedDrive>& drives) {
    std::vector<std::string> taken;
    for (auto& drive : drives) {
      if (drive.id.empty()) {
        const bool floppy = drive.interface == DriveInterface::kFloppy;
        const char letter = static_cast<char>('a' + *drive.bus * 2 + *drive.unit);
        drive.id = floppy ? fmt::format("fd{}", *drive.unit) : fmt::format("hd{}", letter);
      }
      while (std::ranges::find(taken, drive.id) != taken.end()) {
        drive.id += "_";
      }
      taken.push_back(drive.id);
    }
  }

  ImportReport& report_;
  std::vector<Place> taken_;
  std::array<bool, 2> floppies_{};
};

/// Libvirt takes longer texts than a drive can tell; QEMU cuts them, and so did the guest see them.
void cut_identity(ImportedDrive& drive, ImportReport& report) {
  // ATA/ATAPI-6, 7.17.7: the identify strings.
  for (const auto& [name, text, room] :
       {std::tuple("serial", &drive.serial, 20U), std::tuple("model", &drive.model, 40U),
        std::tuple("version", &drive.version, 8U)}) {
    if (!std::ranges::all_of(*text, [](char c) { return c >= ' ' && c <= '~'; })) {
      report.note(drive.where, fmt::format("{} has characters other than printable ASCII: left out", name));
      text->clear();
    }
    if (text->size() > room) {
      report.note(drive.where, fmt::format("{} is longer than {} characters: cut there", name, room));
      text->resize(room);
    }
  }
}

/// Text for people: a section a line, the elements of an array a line each, drives with their file on a
/// second.
std::string on_one_line(const Json& value, std::string_view before_file = "") {
  if (!value.is_structured() || value.empty()) {
    return value.dump();
  }
  std::string text = value.is_object() ? "{ " : "[";
  for (const auto& [key, inner] : value.items()) {
    const bool first = text.size() <= 2;
    text += fmt::format("{}{}{}",
                        first                                   ? ""
                        : key == "file" && !before_file.empty() ? before_file
                                                                : ", ",
                        value.is_object() ? Json(key).dump() + ": " : "", on_one_line(inner));
  }
  return text + (value.is_object() ? " }" : "]");
}

std::string pretty(const Json& document) {
  std::string text = "{";
  for (const auto& [key, value] : document.items()) {
    text += fmt::format("{}\n  {}: ", text.size() == 1 ? "" : ",", Json(key).dump());
    if (!value.is_array() || value.empty()) {
      text += on_one_line(value);
      continue;
    }
    std::string separator = "[";
    for (const auto& element : value) {
      text += fmt::format("{}\n    {}", separator, on_one_line(element, ",\n      "));
      separator = ",";
    }
    text += "\n  ]";
  }
  return text + "\n}\n";
}

class Writer {
 public:
  Writer(const ImportedMachine& machine, bool absolute) : machine_(machine), absolute_(absolute) {}

  [[nodiscard]] Json document() const {
    const auto& m = machine_;
    Json to = Json::object();
    put_text(to, "name", m.name);
    put_text(to, "uuid", m.uuid);
    to["machine"] = {{"type", "pc-i440fx"}, {"acpi", m.acpi}, {"apic", m.apic}};
    put_if(to["machine"], "ide", m.piix4_ide, "piix4");
    to["cpu"] = {{"model", "host-passthrough"}, {"cores", m.cores}, {"features", Json(m.features)}};
    to["memory"] = fmt::format("{}M", m.memory / kMiB);
    Json options = Json::object();
    put_if(options, "huge_pages", m.huge_pages, true);
    put_if(options, "merge", m.merge, true);
    put_section(to, "memory_options", options);
    to["clock"] = {{"base", m.local_time ? "localtime" : "utc"}};
    put_value(to["clock"], "start", m.clock_start);
    to["boot"] = boot();
    Json firmware = Json::object();
    put_text(firmware, "bios", path(m.bios));
    put_section(to, "firmware", firmware);
    to["drives"] = Json::array();
    for (const auto& drive : m.drives) {
      to["drives"].push_back(one_drive(drive));
    }
    to["display"] = {{"vga", m.vga ? "std" : "none"}};
    put_if(to["display"], "vram", m.vga, fmt::format("{}M", m.vram / kMiB));
    if (m.vnc) {
      to["vnc"] = {{"listen", m.vnc->listen}, {"port", m.vnc->port}};
      put_if(to["vnc"], "password_file", m.vnc->password, kPasswordFile);
      put_if(to["vnc"], "websocket", m.vnc->websocket, true);
    }
    put_lists(to);
    Json debug = Json::object();
    const bool to_file = m.debug.console.starts_with("file:");
    put_text(debug, "console", to_file ? "file:" + path(m.debug.console.substr(5)) : m.debug.console);
    if (m.debug.exit_port) {
      debug["exit_port"] = fmt::format("{:#x}", *m.debug.exit_port);
    }
    put_if(debug, "testdev", m.debug.testdev, true);
    put_section(to, "debug", debug);
    if (!m.monitor_socket.empty()) {
      to["monitor"] = {{"socket", m.monitor_socket}};
    }
    to["on"] = {{"reboot", m.on.reboot_exits ? "exit" : "reset"},
                {"poweroff", "exit"},
                {"triple_fault", m.on.triple_fault_exits ? "exit" : "reset"}};
    return to;
  }

 private:
  static void put_text(Json& to, const char* key, const std::string& text) {
    if (!text.empty()) {
      to[key] = text;
    }
  }
  template <typename T>
  static void put_if(Json& to, const char* key, bool wanted, const T& value) {
    if (wanted) {
      to[key] = value;
    }
  }
  template <typename T>
  static void put_value(Json& to, const char* key, const std::optional<T>& value) {
    if (value) {
      to[key] = *value;
    }
  }
  static void put_section(Json& to, const char* key, const Json& section) {
    if (!section.empty()) {
      to[key] = section;
    }
  }

  /// Paths of a description are relative to its file, those of a command line to where it is typed.
  [[nodiscard]] std::string path(const std::string& file) const {
    if (file.empty() || !absolute_ || nbd::is_target(file)) {
      return file;
    }
    return std::filesystem::absolute(file).lexically_normal().string();
  }

  [[nodiscard]] Json boot() const {
    const auto& from = machine_.boot;
    Json to = {{"order", from.order}};
    put_if(to, "once", !from.once.empty(), from.once);
    put_if(to, "floppy_check", !from.floppy_check, false);
    put_value(to, "reboot_timeout", from.reboot_timeout);
    to["menu"] = from.menu;
    put_value(to, "menu_timeout", from.menu_timeout);
    put_text(to, "kernel", path(from.kernel));
    put_text(to, "initrd", path(from.initrd));
    put_text(to, "cmdline", from.cmdline);
    return to;
  }

  [[nodiscard]] Json one_drive(const ImportedDrive& drive) const {
    const bool floppy = drive.interface == DriveInterface::kFloppy;
    Json to = {{"id", drive.id}, {"interface", floppy ? "floppy" : "ide"}};
    put_if(to, "bus", !floppy, *drive.bus);
    to["unit"] = *drive.unit;
    put_if(to, "media", !floppy, drive.media == Media::kCdrom ? "cdrom" : "disk");
    put_text(to, "file", path(drive.file));
    put_text(to, "format", drive.file.empty() ? "" : drive.format);
    put_text(to, "cache", drive.file.empty() ? "" : drive.cache);
    put_if(to, "read_only", drive.read_only && drive.media == Media::kDisk, true);
    put_text(to, "serial", drive.serial);
    put_text(to, "model", drive.model);
    put_text(to, "version", drive.version);
    if (const auto& chs = drive.geometry) {
      to["geometry"] = {{"cylinders", chs->cylinders}, {"heads", chs->heads}, {"sectors", chs->sectors}};
      put_text(to["geometry"], "translation", drive.translation);
    }
    return to;
  }

  void put_lists(Json& to) const {
    for (const auto& card : machine_.network) {
      Json one = {{"model", card.model}, {"backend", "user"}};
      put_text(one, "mac", card.mac);
      put_if(one, "restrict", card.restrict, true);
      to["network"].push_back(one);
    }
    for (const auto& port : machine_.serial) {
      Json one = {{"backend", port.backend}};
      put_text(one, "path", path(port.path));
      to["serial"].push_back(one);
    }
  }

  const ImportedMachine& machine_;
  bool absolute_;
};

bool is_here(const std::filesystem::path& target) {
  return target.empty() || std::filesystem::absolute(target).lexically_normal().parent_path() ==
                               std::filesystem::current_path();
}

}  // namespace

void ImportReport::note(std::string_view where, std::string_view text) {
  if (notes_.size() == kMostNotes) {
    ++more_;
    return;
  }
  notes_.push_back(fmt::format("{}: {}: {}", source_, where, text));
}

void ImportReport::error(std::string_view where, std::string_view text) {
  if (!error_) {
    error_ = where.empty() ? fmt::format("{}: {}", source_, text)
                           : fmt::format("{}: {}: {}", source_, where, text);
  }
}

std::vector<std::string> ImportReport::notes() const {
  auto lines = notes_;
  if (more_ != 0) {
    lines.push_back(fmt::format("{}: and {} more such lines", source_, more_));
  }
  return lines;
}

void ImportedMachine::boot_from(std::vector<std::string>& order, std::string_view kind) {
  if (std::ranges::find(order, kind) == order.end()) {
    order.emplace_back(kind);
  }
}

void ImportedMachine::add_card(ImportedCard card, std::string_view where, ImportReport& report) {
  if (network.size() == kMostCards) {
    report.note(where, fmt::format("left out: a machine has {} network cards at most", kMostCards));
    return;
  }
  report.note(where, fmt::format("network[{}] of the description, but this version has no network cards: the "
                                 "guest sees none",
                                 network.size()));
  network.push_back(std::move(card));
}

void ImportedMachine::add_serial(ImportedSerial port, std::string_view where, ImportReport& report) {
  if (serial.size() == kMostSerials) {
    report.note(where, "left out: a machine has two serial ports at most");
    return;
  }
  const bool again = port.backend == "stdio" &&
                     std::ranges::any_of(serial, [](const auto& other) { return other.backend == "stdio"; });
  if (again) {
    report.note(where, "another serial port has stdio: this one is connected to nothing");
    port.backend = "none";
  }
  serial.push_back(std::move(port));
}

bool ImportedMachine::switch_feature(std::string_view feature, bool enabled) {
  const auto* alias =
      std::ranges::find(kFeatureNames, feature, [](const auto& names) { return names.first; });
  std::string own(alias == kFeatureNames.end() ? feature : alias->second);
  const auto known = known_cpu_features();
  if (std::ranges::find(known, own) == known.end()) {
    std::ranges::replace(own, '_', '-');
  }
  if (std::ranges::find(known, own) == known.end()) {
    return false;
  }
  features[own] = enabled;
  return true;
}

void ImportedMachine::set_vram(std::uint64_t bytes) {
  constexpr std::uint64_t kMost = 256 * kMiB;
  vram = std::bit_ceil(std::clamp<std::uint64_t>(bytes, kMiB, kMost));
}

Result<std::string> write_description(ImportedMachine machine, ImportReport& report,
                                      const std::filesystem::path& target) {
  if (report.failed()) {
    return report.failure();
  }
  machine.drives = Placer(report).place(std::move(machine.drives));
  for (auto& drive : machine.drives) {
    cut_identity(drive, report);
  }
  if (machine.name.size() > kNameLength) {
    std::size_t end = kNameLength;
    while (end > 0 && (static_cast<unsigned char>(machine.name[end]) & 0xC0) == 0x80) {
      --end;  // not within a character
    }
    report.note("name", fmt::format("is longer than {} bytes: cut there", kNameLength));
    machine.name.resize(end);
  }
  if (machine.vnc && machine.vnc->password) {
    report.note("vnc", fmt::format("the password does not come along: write it into a file {} beside the "
                                   "description; without the file the machine does not start",
                                   kPasswordFile));
  }
  if (machine.vnc && machine.vnc->websocket) {
    report.note("vnc", "websocket is in the description, but this version does not serve it");
  }
  std::string text;
  try {
    text = pretty(Writer(machine, !is_here(target)).document());
  } catch (const nlohmann::json::exception&) {
    report.error("", "a name or path in it is not UTF-8: rename what it names");
    return report.failure();
  }
  // What Whistler would not read is never written.
  if (const auto read = parse_description(text, target.empty() ? "description" : target); !read) {
    report.error("", fmt::format("cannot become a machine description: {}", read.error().message));
    return report.failure();
  }
  return text;
}

std::optional<std::string> tidy_uuid(std::string_view text) {
  std::string digits(text);
  std::erase(digits, '-');
  const auto is_hex = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  };
  if (digits.size() != 32 || !std::ranges::all_of(digits, is_hex)) {
    return std::nullopt;
  }
  for (const std::size_t dash : {8U, 13U, 18U, 23U}) {
    digits.insert(dash, "-");
  }
  return digits;
}

std::optional<std::uint64_t> whole_number(std::string_view text, int base) {
  std::uint64_t number = 0;
  if (base == 16 && (text.starts_with("0x") || text.starts_with("0X"))) {
    text.remove_prefix(2);
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(number) : std::nullopt;
}

bool is_plain_text(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    if (first < 0x80) {
      if ((first < 0x20 && first != '\t' && first != '\n' && first != '\r') || first == 0x7F) {
        return false;
      }
      ++i;
      continue;
    }
    // Unicode 3.9, table 3-7: what may follow which first byte.
    const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || text.size() - i < length) {
      return false;
    }
    const auto second = static_cast<unsigned char>(text[i + 1]);
    const unsigned lowest = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const unsigned highest = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (second < lowest || second > highest) {
      return false;
    }
    for (std::size_t k = 2; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xC0) != 0x80) {
        return false;
      }
    }
    i += length;
  }
  return true;
}

}  // namespace whistler
