#include "vmm/monitor/qmp_commands.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "vmm/board_pc.hpp"
#include "vmm/monitor/key_names.hpp"
#include "vmm/monitor/screen_file.hpp"

namespace whistler::qmp {
namespace {

constexpr std::size_t kMostKeys = 16;  // pressed at once; what is beyond them would not fit the PS/2 queue

struct Command {
  std::string_view name;
  Answer<Json> (*run)(MachineControl&, Arguments&);
};

std::span<const Command> commands();

Json nothing() { return Json::object(); }

std::string_view status_word(RunState state) {
  switch (state) {
    case RunState::kRunning: return "running";
    case RunState::kPaused: return "paused";
    case RunState::kIoError: return "io-error";
  }
  std::unreachable();
}

/// A command that takes no arguments and returns nothing.
template <void (MachineControl::*Action)()>
Answer<Json> simple(MachineControl& machine, Arguments& arguments) {
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  (machine.*Action)();
  return nothing();
}

/// A question that takes no arguments.
template <Json (*Ask)(MachineControl&)>
Answer<Json> question(MachineControl& machine, Arguments& arguments) {
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  return Ask(machine);
}

Json status(MachineControl& machine) {
  const auto state = machine.run_state();
  return {{"running", state == RunState::kRunning}, {"singlestep", false}, {"status", status_word(state)}};
}

Json version(MachineControl&) { return Json::parse(greeting_line())["QMP"]["version"]; }

Json command_names(MachineControl&) {
  Json names = Json::array({{{"name", "qmp_capabilities"}}});
  for (const auto& command : commands()) {
    names.push_back({{"name", command.name}});
  }
  return names;
}

Json machine_name(MachineControl& machine) { return {{"name", machine.pc().description().name}}; }

Json kvm(MachineControl&) { return {{"enabled", true}, {"present", true}}; }

Json block(MachineControl& machine) {
  Json list = Json::array();
  for (const auto& drive : machine.pc().description().drives) {
    const bool cdrom = drive.media == Media::kCdrom;
    Json one = {{"device", drive.id}, {"type", "unknown"}, {"removable", cdrom}, {"locked", false}};
    if (cdrom) {
      one["tray_open"] = false;
    }
    if (!drive.file.empty()) {
      one["io-status"] = "ok";
      one["inserted"] = {{"file", drive.file}, {"drv", drive.format}, {"ro", drive.read_only || cdrom}};
    }
    list.push_back(std::move(one));
  }
  return list;
}

Answer<Json> screendump(MachineControl& machine, Arguments& arguments) {
  const auto file = arguments.text("filename");
  const auto format = arguments.text_or("format", "ppm");
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  if (format != "ppm" && format != "png") {
    return refuse(fmt::format("Parameter 'format' does not accept value '{}'", format));
  }
  DisplaySource* display = machine.pc().display();
  if (display == nullptr) {
    return refuse("There is no console to take a screendump from");
  }
  Surface picture;
  {
    const std::scoped_lock lock(machine.pc().lock());
    display->update();
    picture = display->surface();
  }
  const auto written =
      write_picture(picture, file, format == "png" ? PictureFormat::kPng : PictureFormat::kPpm);
  return written ? Answer<Json>(nothing()) : refuse(written.error().message);
}

/// A key of send-key or input-send-event: { "type": "qcode" | "number", "data": ... }.
Answer<KeyNumber> key_of(const Json& value) {
  if (!value.is_object() || !value.contains("type") || !value.contains("data")) {
    return refuse("Invalid parameter type for 'keys', expected: object");
  }
  const auto& data = value["data"];
  if (value["type"] == "qcode" && data.is_string()) {
    if (const auto key = key_by_name(data.get<std::string>())) {
      return *key;
    }
    return refuse(fmt::format("Parameter 'data' does not accept value '{}'", data.get<std::string>()));
  }
  if (value["type"] == "number" && data.is_number_unsigned() && data.get<std::uint64_t>() <= 0xFF) {
    return data.get<KeyNumber>();
  }
  return refuse("Invalid parameter 'type'");
}

/// The keys go down in their order and up again in the opposite one; the PS/2 queue keeps them until the guest reads
/// them, so how long they are held is the guest's pace and not the hold time.
Answer<Json> send_key(MachineControl& machine, Arguments& arguments) {
  const Json list = arguments.list("keys");
  static_cast<void>(arguments.number_or("hold-time", 0));
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  if (list.size() > kMostKeys) {
    return refuse(fmt::format("Parameter 'keys' holds more than {} keys", kMostKeys));
  }
  std::vector<KeyNumber> keys;
  for (const auto& value : list) {
    const auto key = key_of(value);
    if (!key) {
      return std::unexpected(key.error());
    }
    keys.push_back(*key);
  }
  const std::scoped_lock lock(machine.pc().lock());
  auto& input = machine.pc().board().input();
  for (const auto key : keys) {
    input.key(key, true);
  }
  for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
    input.key(*key, false);
  }
  return nothing();
}

std::span<const Command> commands() {
  static constexpr auto kCommands = std::to_array<Command>({
      {"query-status", question<status>},
      {"query-version", question<version>},
      {"query-commands", question<command_names>},
      {"query-name", question<machine_name>},
      {"query-kvm", question<kvm>},
      {"query-block", question<block>},
      {"stop", simple<&MachineControl::stop>},
      {"cont", simple<&MachineControl::cont>},
      {"system_reset", simple<&MachineControl::reset>},
      {"system_powerdown", simple<&MachineControl::power_button>},
      {"quit", simple<&MachineControl::quit>},
      {"screendump", screendump},
      {"send-key", send_key},
  });
  return kCommands;
}

}  // namespace

Answer<Json> execute(MachineControl& machine, const Request& request) {
  const auto all = commands();
  const auto found = std::ranges::find(all, request.command, &Command::name);
  if (found == all.end()) {
    return std::unexpected(Refusal{.error_class = "CommandNotFound",
                                   .description = fmt::format("The command {} has not been found", request.command)});
  }
  Arguments arguments(request.arguments);
  return found->run(machine, arguments);
}

}  // namespace whistler::qmp
