#include "vmm/import/qemu_command_line.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "vmm/import/qemu_reader.hpp"

namespace whistler {
namespace {

constexpr std::uint64_t kMostCores = 8;
constexpr std::uint64_t kMostMemory = 1024 * kGiB;

/// "2006-06-17T16:01:21" or "2006-06-17" as seconds since 1970.
std::optional<std::int64_t> parse_date(std::string_view text) {
  if (text.size() != 10 && text.size() != 19) {
    return std::nullopt;
  }
  std::array<std::uint64_t, 6> field{};
  constexpr std::array<std::pair<std::size_t, std::size_t>, 6> kFields = {
      {{0, 4}, {5, 2}, {8, 2}, {11, 2}, {14, 2}, {17, 2}}};
  for (std::size_t i = 0; i < kFields.size() && kFields[i].first < text.size(); ++i) {
    const auto value = whole_number(text.substr(kFields[i].first, kFields[i].second));
    if (!value) {
      return std::nullopt;
    }
    field[i] = *value;
  }
  const std::chrono::year_month_day day(std::chrono::year(static_cast<int>(field[0])),
                                        std::chrono::month(static_cast<unsigned>(field[1])),
                                        std::chrono::day(static_cast<unsigned>(field[2])));
  if (!day.ok() || field[0] < 1970 || field[3] > 23 || field[4] > 59 || field[5] > 59) {
    return std::nullopt;
  }
  const auto days = std::chrono::sys_days(day).time_since_epoch().count();
  return std::int64_t{days} * 86400 + static_cast<std::int64_t>(field[3] * 3600 + field[4] * 60 + field[5]);
}

/// The kinds of QEMU's boot letters: "dc" is CD-ROM, then disk.
std::optional<std::vector<std::string>> boot_kinds(std::string_view letters) {
  std::vector<std::string> kinds;
  for (const char letter : letters) {
    if (letter < 'a' || letter > 'p') {
      return std::nullopt;
    }
    ImportedMachine::boot_from(kinds, letter <= 'b'   ? "floppy"
                                      : letter == 'c' ? "disk"
                                      : letter == 'd' ? "cdrom"
                                                      : "network");
  }
  return kinds;
}

bool is_machine_program(std::string_view word) {
  const auto name = word.substr(word.rfind('/') + 1);
  return name.starts_with("qemu-system-") || name == "qemu-kvm" || name == "qemu" || name == "kvm";
}

}  // namespace

std::optional<QemuSettings> QemuReader::settings_of(std::string_view value, std::string_view first) {
  auto settings = QemuSettings::parse(value, first);
  if (!settings) {
    error("has JSON that cannot be read, or that is nested too deeply");
  }
  return settings;
}

void QemuReader::note_left(const QemuSettings& settings, std::string_view where) {
  if (const auto left = settings.left(); !left.empty()) {
    report_.note(where, fmt::format("{}: left out", fmt::join(left, ", ")));
  }
}

std::uint64_t QemuReader::number(std::string_view where, std::string_view text, std::uint64_t lowest,
                                 std::uint64_t highest) {
  const auto value = whole_number(text, text.starts_with("0x") ? 16 : 10);
  if (!value || *value < lowest || *value > highest) {
    report_.error(where,
                  fmt::format("\"{}\" is not a number from {} to {}", text.substr(0, 40), lowest, highest));
    return lowest;
  }
  return *value;
}

void QemuReader::read(const std::vector<QemuWord>& words, bool whole) {
  for (std::size_t i = 0; i < words.size() && !report_.failed(); ++i) {
    const auto& word = words[i];
    const auto place = [&](std::string_view name) {
      return word.where.empty() ? std::string(name) : fmt::format("{} {}", word.where, name);
    };
    if (word.text.empty() || word.text[0] != '-' || word.text == "-") {
      where_ = place(word.text.substr(0, 80));
      add_image(word.text, 0, Media::kDisk);  // QEMU takes a lone word for its first disk
      continue;
    }
    const auto name = std::string_view(word.text).substr(word.text.starts_with("--") ? 2 : 1);
    where_ = place(fmt::format("-{}", name.substr(0, 80)));
    const auto known = options().find(name);
    const bool has_next = i + 1 < words.size();
    if (known == options().end()) {
      // What follows an unknown option is its argument, unless it looks like the next option.
      const bool argument = has_next && !words[i + 1].text.starts_with('-');
      note(argument ? fmt::format("is not known to this version: left out with its argument \"{}\"",
                                  words[i + 1].text.substr(0, 80))
                    : "is not known to this version: left out");
      i += argument ? 1 : 0;
      continue;
    }
    const auto& option = known->second;
    if (option.has_argument && !has_next) {
      error("needs an argument, and nothing follows it");
      return;
    }
    const std::string_view value = option.has_argument ? std::string_view(words[++i].text) : "";
    if (option.handler != nullptr) {
      option.handler(*this, value);
    } else if (!option.note.empty()) {
      note(option.note);
    }
  }
  if (!report_.failed()) {
    finish(whole);
  }
}

void QemuReader::finish(bool whole) {
  build_devices();
  std::vector<std::string> order;
  for (const auto& [index, kind] : boot_indexes_) {
    ImportedMachine::boot_from(order, kind);
  }
  if (!order.empty()) {
    machine_.boot.order = order;
  }
  if (!whole) {
    return;
  }
  if (defaults_ && default_cdrom_ && !is_taken(2)) {
    ImportedDrive empty;
    empty.where = "the CD-ROM drive that QEMU adds";
    empty.media = Media::kCdrom;
    add_on_ide(std::move(empty), 2);
  }
  if (machine_.boot.order.empty() && !has_order_) {
    machine_.boot.order = {"disk", "cdrom"};
  }
  if (!machine_.vnc && !no_screen_) {
    machine_.vnc = ImportedVnc{};  // in place of a window
  }
  machine_.on.triple_fault_exits = machine_.on.reboot_exits;
}

void QemuReader::read_machine(std::string_view value) {
  auto settings = settings_of(value, "type");
  if (!settings) {
    return;
  }
  const auto type = settings->take("type");
  if (!type.empty() && type != "pc" && !type.starts_with("pc-i440fx") && !type.starts_with("pc-0.") &&
      !type.starts_with("pc-1.")) {
    note(
        fmt::format("machine \"{}\" becomes pc-i440fx: the guest finds another chipset, and may have to be "
                    "installed again",
                    type.substr(0, 40)));
  }
  if (settings->has("accel")) {
    read_accel(settings->take("accel"));
  }
  machine_.acpi = settings->flag("acpi", machine_.acpi);
  machine_.merge = settings->flag("mem-merge", false);
  if (settings->flag("usb", false)) {
    note("usb: this version has no USB: left out");
  }
  for (const auto* harmless :
       {"dump-guest-core", "kernel_irqchip", "kernel-irqchip", "hpet", "vmport", "graphics", "memory-backend",
        "smm", "pcspk-audiodev", "suppress-vmdesc", "i8042", "pit", "pic"}) {
    static_cast<void>(settings->take(harmless));
  }
  if (const auto kernel = settings->take("kernel"); !kernel.empty()) {
    machine_.boot.kernel = kernel;
  }
  note_left(*settings, where_);
}

void QemuReader::read_accel(std::string_view value) {
  // Several may be tried in turn.
  if (value.find("kvm") == std::string_view::npos) {
    note(fmt::format("\"{}\": Whistler runs on KVM only", value.substr(0, 40)));
  }
}

void QemuReader::read_cpu(std::string_view value) {
  auto settings = settings_of(value, "model");
  if (!settings) {
    return;
  }
  const auto model = settings->take("model");
  if (model != "host" && model != "max") {
    note(
        fmt::format("{} becomes host-passthrough: the guest sees the CPU of this host", model.substr(0, 40)));
  }
  for (const auto& [key, setting] : settings->all()) {
    if (key == "model" || key == "check" || key == "enforce" || key == "migratable") {
      continue;
    }
    const bool plus = key.starts_with('+');
    const bool minus = key.starts_with('-');
    const auto feature = std::string_view(key).substr(plus || minus ? 1 : 0);
    if (!machine_.switch_feature(feature, !minus && is_on(setting))) {
      note(fmt::format("Whistler has no switch for \"{}\": left out", key.substr(0, 40)));
    }
  }
}

void QemuReader::read_smp(std::string_view value) {
  auto settings = settings_of(value, "cpus");
  if (!settings) {
    return;
  }
  const auto cpus = settings->take("cpus");
  const auto part = [&](const char* key) {
    const auto text = settings->take(key);
    return text.empty() ? 1 : number(where_, text, 1, 1024);
  };
  const auto sockets = part("sockets");
  const auto cores = part("cores");
  const auto threads = part("threads");
  machine_.cores = cpus.empty() ? sockets * cores * threads : number(where_, cpus, 1, kMostCores);
  if (!report_.failed() && machine_.cores > kMostCores) {
    error(fmt::format("is {} CPUs; a guest can have 1 to {}", machine_.cores, kMostCores));
  }
  if (sockets > 1 || threads > 1) {
    note("all CPUs become cores of one socket");
  }
  if (const auto most = settings->take("maxcpus"); !most.empty() && most != std::to_string(machine_.cores)) {
    note("maxcpus: no CPUs are added while the guest runs: left out");
  }
  note_left(*settings, where_);
}

void QemuReader::read_memory(std::string_view value) {
  auto settings = settings_of(value, "size");
  if (!settings) {
    return;
  }
  const auto text = settings->take("size");
  const bool plain = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  const auto size = parse_size(plain ? text + "M" : text);
  if (!size) {
    error(size.error().message);
    return;
  }
  if (*size < kMiB || *size > kMostMemory) {
    error(fmt::format("is {} bytes; a guest can have 1 MiB to 1 TiB", *size));
  } else if (*size % kMiB != 0) {
    note("is not a whole number of MiB: rounded down");
  }
  machine_.memory = *size / kMiB * kMiB;
  note_left(*settings, where_);
}

void QemuReader::read_mem_path(std::string_view value) {
  machine_.huge_pages = value.find("hugepages") != std::string_view::npos;
  if (!machine_.huge_pages) {
    note("the guest's memory is in no file: left out");
  }
}

void QemuReader::read_overcommit(std::string_view value) {
  auto settings = settings_of(value, "");
  if (settings && settings->flag("mem-lock", false)) {
    note("Whistler does not lock memory: left out");
  }
}

void QemuReader::read_name(std::string_view value) {
  if (auto settings = settings_of(value, "guest")) {
    machine_.name = settings->take("guest");
  }
}

void QemuReader::read_uuid(std::string_view value) {
  if (const auto uuid = tidy_uuid(value)) {
    machine_.uuid = *uuid;
  } else {
    error("is not of the form 12345678-1234-1234-1234-123456789abc");
  }
}

void QemuReader::read_smbios(std::string_view value) {
  auto settings = settings_of(value, "file");
  if (!settings) {
    return;
  }
  static_cast<void>(settings->take("type"));
  if (const auto uuid = settings->take("uuid"); !uuid.empty()) {
    read_uuid(uuid);
  }
  if (!settings->left().empty()) {
    note("SMBIOS texts are Whistler's own but for name and uuid: left out");
  }
}

void QemuReader::read_boot(std::string_view value) {
  auto settings = settings_of(value, "order");
  if (!settings) {
    return;
  }
  for (const auto* key : {"order", "once"}) {
    if (!settings->has(key)) {
      continue;
    }
    const auto letters = settings->take(key);
    const auto kinds = boot_kinds(letters);
    if (!kinds) {
      error(fmt::format("\"{}\" has letters other than a to p: c is the disk, d the CD-ROM, n the network",
                        letters.substr(0, 40)));
      return;
    }
    const bool once = std::string_view(key) == "once";
    has_order_ = has_order_ || !once;
    (once ? machine_.boot.once : machine_.boot.order) = *kinds;
  }
  machine_.boot.menu = settings->flag("menu", machine_.boot.menu);
  if (const auto time = settings->take("splash-time"); !time.empty()) {
    machine_.boot.menu_timeout = number(where_, time, 0, 65535);
  }
  if (const auto timeout = settings->take("reboot-timeout"); !timeout.empty() && timeout != "-1") {
    machine_.boot.reboot_timeout = number(where_, timeout, 0, 65535);
  }
  static_cast<void>(settings->take("strict"));
  note_left(*settings, where_);
}

void QemuReader::set_clock(std::string_view base) {
  if (base == "utc" || base == "localtime") {
    machine_.local_time = base == "localtime";
  } else if (const auto start = parse_date(base)) {
    machine_.clock_start = *start;
  } else {
    error(fmt::format("\"{}\" is not utc, localtime or a date like 2006-06-17T16:01:21", base.substr(0, 40)));
  }
}

void QemuReader::read_rtc(std::string_view value) {
  auto settings = settings_of(value, "base");
  if (!settings) {
    return;
  }
  if (const auto base = settings->take("base"); !base.empty()) {
    set_clock(base);
  }
  if (const auto clock = settings->take("clock"); !clock.empty() && clock != "host") {
    note("the clock follows the host's: left out");
  }
  static_cast<void>(settings->take("driftfix"));
  note_left(*settings, where_);
}

void QemuReader::read_action(std::string_view value) {
  auto settings = settings_of(value, "");
  if (!settings) {
    return;
  }
  if (const auto reboot = settings->take("reboot"); !reboot.empty()) {
    machine_.on.reboot_exits = reboot == "shutdown";
  }
  if (settings->take("shutdown") == "pause") {
    note("a guest that powers off ends the program: left out");
  }
  note_left(*settings, where_);
}

void QemuReader::read_global(std::string_view value) {
  auto settings = settings_of(value, "");
  if (!settings) {
    return;
  }
  // The long form says in three settings what the short one says in one.
  const auto driver = settings->take("driver");
  const auto property = settings->take("property");
  const auto given = settings->take("value");
  auto pairs = settings->all();
  if (!driver.empty()) {
    pairs = {{fmt::format("{}.{}", driver, property), given}};
  }
  for (const auto& [key, setting] : pairs) {
    const bool harmless = key.starts_with("PIIX4_PM.disable_s") || key == "kvm-pit.lost_tick_policy" ||
                          key == "mc146818rtc.lost_tick_policy";
    if (key == "isa-debugcon.iobase") {
      debug_port_ = number(where_, setting, 1, 0xFFFF);
    } else if (key == "VGA.vgamem_mb") {
      machine_.set_vram(number(where_, setting, 1, 1024) * kMiB);
    } else if (!harmless) {
      note(fmt::format("{}: left out", key.substr(0, 80)));
    }
  }
}

void QemuReader::read_object(std::string_view value) {
  auto settings = settings_of(value, "qom-type");
  if (!settings) {
    return;
  }
  const auto type = settings->take("qom-type");
  if (type == "memory-backend-file" && settings->take("mem-path").find("hugepages") != std::string::npos) {
    machine_.huge_pages = true;
  } else if (type != "iothread" && type != "secret" && type != "memory-backend-ram" &&
             type != "memory-backend-memfd") {
    note(fmt::format("Whistler has no object {}: left out", type.substr(0, 40)));
  }
}

ImportedMachine import_qemu_command_line(const std::vector<std::string>& words, ImportReport& report) {
  ImportedMachine machine;
  // What stands before the program (sudo, VARIABLE=value, exec) is the shell's affair.
  const auto option = std::ranges::find_if(words, [](const auto& word) { return word.starts_with('-'); });
  auto program = std::find_if(words.begin(), option, is_machine_program);
  if (program == option && option != words.begin()) {
    report.error("", fmt::format("\"{}\" is not QEMU: begin with qemu-system-i386 or qemu-system-x86_64",
                                 words.front().substr(0, 80)));
    return machine;
  }
  if (program == option && option == words.end()) {
    report.error("", "is empty: give a command line that begins with qemu-system-i386 or qemu-system-x86_64");
    return machine;
  }
  if (program != option) {
    const auto name = std::string_view(*program).substr(program->rfind('/') + 1);
    if (name.starts_with("qemu-system-") && name != "qemu-system-i386" && name != "qemu-system-x86_64") {
      report.error("", fmt::format("{} is for another kind of machine; Whistler runs i686 and x86_64 only",
                                   name.substr(0, 80)));
      return machine;
    }
    ++program;
  }
  std::vector<QemuWord> arguments;
  for (auto word = program; word != words.end(); ++word) {
    if (!is_plain_text(*word)) {
      report.error(fmt::format("word {}", word - words.begin() + 1),
                   "has control characters or is not UTF-8");
      return machine;
    }
    arguments.push_back({*word});
  }
  QemuReader(machine, report).read(arguments, true);
  return machine;
}

void add_qemu_options(const std::vector<QemuWord>& words, ImportedMachine& machine, ImportReport& report) {
  QemuReader(machine, report).read(words, false);
}

}  // namespace whistler
