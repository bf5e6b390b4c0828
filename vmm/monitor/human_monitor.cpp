// human-monitor-command: the lines of QEMU's own monitor that scripts are known to send.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <sstream>

#include "base/bytes.hpp"
#include "vmm/monitor/qmp_commands.hpp"
#include "vmm/monitor/qmp_guest.hpp"

namespace whistler::qmp {
namespace {

using Words = std::vector<std::string>;

Words words_of(const std::string& line) {
  std::istringstream stream(line);
  Words words;
  for (std::string word; stream >> word;) {
    words.push_back(std::move(word));
  }
  return words;
}

std::string error_text(const Refusal& refusal) { return fmt::format("Error: {}\r\n", refusal.description); }

/// What a QMP command that is done at once returns, or null with its refusal in `text`.
Json ask(MachineControl& machine, const std::string& command, std::string& text, Json arguments = {}) {
  if (arguments.is_null()) {
    arguments = Json::object();
  }
  Answer<Json> answer = Json();
  execute(machine, {.command = command, .arguments = std::move(arguments)},
          [&](Answer<Json> given) { answer = std::move(given); });
  if (!answer) {
    text = error_text(answer.error());
    return nullptr;
  }
  return *answer;
}

std::string block_text(const Json& drives) {
  std::string text;
  for (const auto& drive : drives) {
    const auto name = drive["device"].get<std::string>();
    if (drive.contains("inserted")) {
      const auto& in = drive["inserted"];
      text += fmt::format("{} ({}): {} ({}{})\r\n", name, in["node-name"].get<std::string>(),
                          in["file"].get<std::string>(), in["drv"].get<std::string>(),
                          in["ro"].get<bool>() ? ", read-only" : "");
    } else {
      text += fmt::format("{}: [not inserted]\r\n", name);
    }
    text += fmt::format("    Attached to:      {}\r\n", drive["qdev"].get<std::string>());
    if (drive["removable"].get<bool>()) {
      text += fmt::format("    Removable device: {}locked, tray {}\r\n",
                          drive["locked"].get<bool>() ? "" : "not ",
                          drive["tray_open"].get<bool>() ? "open" : "closed");
    }
    if (drive.contains("inserted")) {
      const auto& in = drive["inserted"];
      text += fmt::format("    Cache mode:       {}\r\n",
                          in["cache"]["writeback"].get<bool>() ? "writeback" : "writethrough");
      if (in.contains("backing_file")) {
        text += fmt::format("    Backing file:     {} (chain depth: {})\r\n",
                            in["backing_file"].get<std::string>(), in["backing_file_depth"].get<unsigned>());
      }
    }
    text += "\r\n";
  }
  return text;
}

std::string_view class_name(std::uint32_t class_code) {
  switch (class_code >> 8) {
    case 0x0101: return "IDE controller";
    case 0x0200: return "Ethernet controller";
    case 0x0300: return "VGA controller";
    case 0x0600: return "Host bridge";
    case 0x0601: return "ISA bridge";
    case 0x0680: return "Bridge";
    case 0x0C03: return "USB controller";
    default: return "Device";
  }
}

std::string pci_text(MachineControl& machine) {
  constexpr unsigned kSlots = 32, kFunctions = 8;
  constexpr unsigned kClass = 0x08, kSubsystem = 0x2C;
  const std::scoped_lock lock(machine.pc().lock());
  const auto& pci = machine.pc().board().pci();
  std::string text;
  for (unsigned slot = 0; slot < kSlots; ++slot) {
    for (unsigned number = 0; number < kFunctions; ++number) {
      const auto id = pci.config_read(slot, number, 0, 4);
      if (id == 0xFFFFFFFF) {
        continue;
      }
      const auto subsystem = pci.config_read(slot, number, kSubsystem, 4);
      text += fmt::format("  Bus  0, device {:3}, function {}:\r\n    {}: PCI device {:04x}:{:04x}\r\n", slot,
                          number, class_name(pci.config_read(slot, number, kClass, 4) >> 8), id & 0xFFFF,
                          id >> 16);
      text += fmt::format("      PCI subsystem {:04x}:{:04x}\r\n      id \"\"\r\n", subsystem & 0xFFFF,
                          subsystem >> 16);
    }
  }
  return text;
}

std::string info(MachineControl& machine, const Words& words) {
  const std::string what = words.size() > 1 ? words[1] : "";
  std::string text;
  if (what == "status") {
    const auto state = ask(machine, "query-status", text);
    const bool running = state["running"].get<bool>();
    const auto status = state["status"].get<std::string>();
    return fmt::format("VM status: {}{}\r\n", running ? "running" : "paused",
                       running || status == "paused" ? "" : " (" + status + ")");
  }
  if (what == "block") {
    return block_text(ask(machine, "query-block", text));
  }
  if (what == "registers") {
    for (const char c : machine.registers()) {
      text += c == '\n' ? "\r\n" : std::string(1, c);
    }
    return text;
  }
  if (what == "pci") {
    return pci_text(machine);
  }
  if (what == "cpus") {
    for (unsigned i = 0; const auto thread : machine.thread_ids()) {
      text += fmt::format("{} CPU #{}: thread_id={}\r\n", i == 0 ? '*' : ' ', i, thread);
      ++i;
    }
    return text;
  }
  if (what == "name") {
    return machine.pc().description().name + "\r\n";
  }
  if (what == "uuid") {
    const auto& id = machine.pc().description().uuid;
    for (std::size_t i = 0; i < id.size(); ++i) {
      text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id[i]);
    }
    return text + "\r\n";
  }
  if (what == "version") {
    return "7.2.0whistler " WHISTLER_VERSION "\r\n";
  }
  if (what == "kvm") {
    return "kvm support: enabled\r\n";
  }
  if (what == "mice") {
    return "* Mouse #0: PS/2 Mouse\r\n";
  }
  if (what == "chardev") {
    for (const auto& device : ask(machine, "query-chardev", text)) {
      text += fmt::format("{}: filename={}\r\n", device["label"].get<std::string>(),
                          device["filename"].get<std::string>());
    }
    return text;
  }
  return fmt::format("unknown command: 'info {}'\r\n", what);
}

std::optional<std::uint64_t> number_of(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    text.remove_prefix(2);
    base = 16;
  }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size() && !text.empty() ? std::optional(value)
                                                                                   : std::nullopt;
}

/// "x /4xw ADDRESS" and "xp ...": numbers in hexadecimal or decimal.
std::string dump(MachineControl& machine, const Words& words) {
  constexpr std::uint64_t kMostItems = 65536;
  std::uint64_t count = 1;
  char format = 'x';
  unsigned width = 4;
  std::size_t next = 1;
  if (words.size() > next && words[next].starts_with('/')) {
    const auto& how = words[next++];
    std::size_t at = 1;
    for (std::uint64_t given = 0; at < how.size() && how[at] >= '0' && how[at] <= '9'; ++at) {
      count = given = std::min(given * 10 + static_cast<std::uint64_t>(how[at] - '0'), kMostItems + 1);
    }
    for (; at < how.size(); ++at) {
      switch (how[at]) {
        case 'b': width = 1; break;
        case 'h': width = 2; break;
        case 'w': width = 4; break;
        case 'g': width = 8; break;
        case 'x':
        case 'u': format = how[at]; break;
        default: return fmt::format("format '{}' is not known here: x and u are\r\n", how[at]);
      }
    }
  }
  const auto from = words.size() == next + 1 ? number_of(words[next]) : std::nullopt;
  if (!from || count > kMostItems) {
    return fmt::format("{}: an address as a number is needed, and up to {} items\r\n", words[0], kMostItems);
  }
  const unsigned per_line = width <= 2 ? 8 / width : 16 / width;
  std::string text;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto address = *from + i * width;
    if (i % per_line == 0) {
      text += fmt::format("{}{:016x}:", i == 0 ? "" : "\r\n", address);
    }
    const auto place = words[0] == "xp" ? std::optional(address) : machine.translate(0, address);
    if (!place) {
      return text + " Cannot access memory\r\n";
    }
    std::array<std::uint8_t, 8> bytes{};
    {
      const std::scoped_lock lock(machine.pc().lock());
      machine.pc().board().memory().read(*place, std::span(bytes).first(width));
    }
    const auto value = load_le<std::uint64_t>(bytes.data());
    text += format == 'x' ? fmt::format(" 0x{:0{}x}", value, width * 2) : fmt::format(" {}", value);
  }
  return text + "\r\n";
}

std::string send_keys(MachineControl& machine, const Words& words) {
  if (words.size() < 2) {
    return "sendkey: parameter 'keys' is missing\r\n";
  }
  Json keys = Json::array();
  std::istringstream names(words[1]);
  for (std::string name; std::getline(names, name, '-');) {
    keys.push_back({{"type", "qcode"}, {"data", name}});
  }
  std::string refused;
  ask(machine, "send-key", refused, {{"keys", keys}});
  return refused.empty() ? "" : fmt::format("invalid parameter: {}\r\n", words[1]);
}

struct Simple {
  std::string_view word, command;
};
constexpr auto kSimple = std::to_array<Simple>({{"stop", "stop"},
                                                {"s", "stop"},
                                                {"cont", "cont"},
                                                {"c", "cont"},
                                                {"system_reset", "system_reset"},
                                                {"system_powerdown", "system_powerdown"},
                                                {"quit", "quit"},
                                                {"q", "quit"},
                                                {"nmi", "inject-nmi"}});

std::string run_line(MachineControl& machine, const std::string& line) {
  const auto words = words_of(line);
  std::string text;
  if (words.empty()) {
    return text;
  }
  const auto& word = words[0];
  if (const auto found = std::ranges::find(kSimple, word, &Simple::word); found != kSimple.end()) {
    ask(machine, std::string(found->command), text);
    return text;
  }
  if (word == "info") {
    return info(machine, words);
  }
  if (word == "x" || word == "xp") {
    return dump(machine, words);
  }
  if (word == "sendkey") {
    return send_keys(machine, words);
  }
  if (word == "screendump" && words.size() > 1) {
    ask(machine, "screendump", text, {{"filename", words[1]}});
    return text;
  }
  return fmt::format("unknown command: '{}'\r\n", line);
}

/// The lines that wait for images, as QMP has them.
std::optional<Request> slow_line(const std::string& line) {
  const auto words = words_of(line);
  if (words.size() > 1 && words[0] == "eject") {
    const bool force = words[1] == "-f";
    return Request{.command = "eject", .arguments = {{"device", words.back()}, {"force", force}}};
  }
  if (words.size() > 2 && words[0] == "change") {
    return Request{.command = "blockdev-change-medium",
                   .arguments = {{"device", words[1]}, {"filename", words[2]}}};
  }
  return std::nullopt;
}

}  // namespace

void human_command(MachineControl& machine, Arguments& arguments, Reply reply) {
  const auto line = arguments.text("command-line");
  static_cast<void>(arguments.number_or("cpu-index", 0));
  Answer<Json> answer;
  if (auto sound = arguments.finish(); !sound) {
    answer = std::unexpected(sound.error());
  } else if (const auto slow = slow_line(line)) {
    execute(machine, *slow, [reply = std::move(reply)](const Answer<Json>& done) {
      reply(Json(done ? std::string() : error_text(done.error())));
    });
    return;
  } else {
    answer = Json(run_line(machine, line));
  }
  const std::scoped_lock lock(machine.pc().lock());
  reply(std::move(answer));
}

}  // namespace whistler::qmp
