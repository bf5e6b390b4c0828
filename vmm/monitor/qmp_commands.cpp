#include "vmm/monitor/qmp_commands.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "vmm/board_pc.hpp"
#include "vmm/monitor/drive_action.hpp"
#include "vmm/monitor/events.hpp"
#include "vmm/monitor/qmp_bitmaps.hpp"
#include "vmm/monitor/qmp_chain.hpp"
#include "vmm/monitor/qmp_guest.hpp"
#include "vmm/monitor/qmp_input.hpp"
#include "vmm/monitor/qmp_jobs.hpp"
#include "vmm/monitor/qmp_media.hpp"
#include "vmm/monitor/qmp_nodes.hpp"
#include "vmm/monitor/screen_file.hpp"

namespace whistler::qmp {
namespace {

struct Command {
  std::string_view name;
  void (*run)(MachineControl&, Arguments&, Reply reply);
};

std::span<const Command> commands();

std::string_view status_word(RunState state) {
  switch (state) {
    case RunState::kRunning: return "running";
    case RunState::kPaused: return "paused";
    case RunState::kIoError: return "io-error";
  }
  std::unreachable();
}

/// A command that is done at once.
template <Answer<Json> (*Do)(MachineControl&, Arguments&)>
void now(MachineControl& machine, Arguments& arguments, Reply reply) {
  auto answer = Do(machine, arguments);
  const std::scoped_lock lock(machine.pc().lock());
  reply(std::move(answer));
}

/// One that waits for images.
template <Task<Answer<Json>> (*Do)(MachineControl&, Arguments)>
void later(MachineControl& machine, Arguments& arguments, Reply reply) {
  const std::scoped_lock lock(machine.pc().lock());
  machine.pc().pending().start<Answer<Json>>(Do(machine, std::move(arguments)), std::move(reply));
}

template <MakeAction Make>
Task<Answer<Json>> alone(MachineControl& machine, Arguments arguments) {
  return run_action(machine, Make, std::move(arguments));
}

/// A command that takes no arguments and returns nothing.
template <void (MachineControl::*Action)()>
Answer<Json> simple(MachineControl& machine, Arguments& arguments) {
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  (machine.*Action)();
  return Json::object();
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
  return written ? Answer<Json>(Json::object()) : refuse(written.error().message);
}

/// What the screen shows, as text where it is text. `generation` rises with every change of a pixel.
Answer<Json> screen_text(MachineControl& machine, Arguments& arguments) {
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  DisplaySource* display = machine.pc().display();
  if (display == nullptr) {
    return refuse("There is no screen");
  }
  const std::scoped_lock lock(machine.pc().lock());
  display->update();
  const auto& surface = display->surface();
  Json answer = {{"mode", "graphics"},
                 {"width", surface.width()},
                 {"height", surface.height()},
                 {"generation", surface.generation()}};
  if (const auto text = display->text()) {
    answer["mode"] = "text";
    answer["rows"] = Json::array();
    for (unsigned row = 0; row < text->rows; ++row) {
      answer["rows"].push_back(text->line(row));
    }
  }
  return answer;
}

Json activity(MachineControl& machine) {
  const auto now = machine.activity();
  return {{"exits", now.exits}, {"cpu-time", now.cpu_time}};
}

Json halted(MachineControl& machine) { return {{"for-good", machine.halted_for_good()}}; }

Json registers(MachineControl& machine) { return {{"text", machine.registers()}}; }

Json cpus(MachineControl& machine) {
  Json list = Json::array();
  const auto threads = machine.thread_ids();
  for (unsigned i = 0; i < threads.size(); ++i) {
    list.push_back({{"cpu-index", i},
                    {"thread-id", threads[i]},
                    {"qom-path", fmt::format("/machine/unattached/device[{}]", i)},
                    {"props", {{"socket-id", 0}, {"core-id", i}, {"thread-id", 0}}},
                    {"target", "x86_64"}});
  }
  return list;
}

Json mice(MachineControl&) {
  return Json::array({{{"name", "PS/2 Mouse"}, {"index", 0}, {"current", true}, {"absolute", false}}});
}

Json character_devices(MachineControl& machine) {
  static constexpr std::array kBackends = {"null", "stdio", "file", "pty", "socket"};
  Json list = Json::array();
  unsigned number = 0;
  for (const auto& serial : machine.pc().description().serial) {
    const auto backend = static_cast<std::size_t>(serial.backend);
    const std::string kind = backend < kBackends.size() ? kBackends[backend] : "null";
    list.push_back({{"label", fmt::format("serial{}", number++)},
                    {"filename", serial.path.empty() ? kind : fmt::format("{}:{}", kind, serial.path)},
                    {"frontend-open", true}});
  }
  return list;
}

std::span<const Command> commands() {
  static constexpr auto kCommands = std::to_array<Command>({
      {"query-status", now<question<status>>},
      {"query-version", now<question<version>>},
      {"query-commands", now<question<command_names>>},
      {"query-name", now<question<machine_name>>},
      {"query-kvm", now<question<kvm>>},
      {"query-block", now<question<query_block>>},
      {"query-blockstats", now<query_block_stats>},
      {"eject", later<eject>},
      {"blockdev-change-medium", later<change_medium>},
      {"blockdev-open-tray", now<open_tray>},
      {"blockdev-close-tray", now<close_tray>},
      {"blockdev-remove-medium", later<remove_medium>},
      {"block_resize", later<resize_disk>},
      {"query-named-block-nodes", now<query_named_block_nodes>},
      {"blockdev-snapshot-sync", later<alone<make_snapshot_action>>},
      {"blockdev-snapshot-internal-sync", later<alone<make_internal_snapshot_action>>},
      {"blockdev-snapshot-delete-internal-sync", later<delete_internal_snapshot>},
      {"transaction", later<transaction>},
      {"block-dirty-bitmap-add", later<alone<make_bitmap_add_action>>},
      {"block-dirty-bitmap-remove", later<alone<make_bitmap_remove_action>>},
      {"block-dirty-bitmap-clear", later<alone<make_bitmap_clear_action>>},
      {"block-dirty-bitmap-enable", later<alone<make_bitmap_enable_action>>},
      {"block-dirty-bitmap-disable", later<alone<make_bitmap_disable_action>>},
      {"block-dirty-bitmap-merge", later<alone<make_bitmap_merge_action>>},
      {"blockdev-add", later<add_node>},
      {"blockdev-del", later<delete_node>},
      {"blockdev-backup", later<alone<make_node_backup_action>>},
      {"drive-backup", later<alone<make_backup_action>>},
      {"drive-mirror", later<drive_mirror>},
      {"block-commit", now<block_commit>},
      {"block-stream", now<block_stream>},
      {"query-block-jobs", now<question<query_block_jobs>>},
      {"block-job-cancel", now<block_job_cancel>},
      {"block-job-pause", now<block_job_pause>},
      {"block-job-resume", now<block_job_resume>},
      {"block-job-set-speed", now<block_job_set_speed>},
      {"block-job-complete", now<block_job_complete>},
      {"block-job-finalize", now<block_job_finalize>},
      {"block-job-dismiss", now<block_job_dismiss>},
      {"query-jobs", now<question<query_jobs>>},
      {"job-cancel", now<job_cancel>},
      {"job-pause", now<job_pause>},
      {"job-resume", now<job_resume>},
      {"job-complete", now<job_complete>},
      {"job-finalize", now<job_finalize>},
      {"job-dismiss", now<job_dismiss>},
      {"query-cpus-fast", now<question<cpus>>},
      {"query-mice", now<question<mice>>},
      {"query-vnc", now<question<query_vnc>>},
      {"query-chardev", now<question<character_devices>>},
      {"memsave", now<save_linear>},
      {"pmemsave", now<save_physical>},
      {"inject-nmi", now<simple<&MachineControl::inject_nmi>>},
      {"set_password", now<set_password>},
      {"change-vnc-password", now<change_vnc_password>},
      {"human-monitor-command", human_command},
      {"stop", now<simple<&MachineControl::stop>>},
      {"cont", now<simple<&MachineControl::cont>>},
      {"system_reset", now<simple<&MachineControl::reset>>},
      {"system_powerdown", now<simple<&MachineControl::power_button>>},
      {"quit", now<simple<&MachineControl::quit>>},
      {"screendump", now<screendump>},
      {"send-key", now<send_key>},
      {"x-screen-text", now<screen_text>},
      {"x-query-activity", now<question<activity>>},
      {"x-query-halted", now<question<halted>>},
      {"x-query-registers", now<question<registers>>},
      {"x-type-keys", now<type_keys>},
      {"x-query-keys", now<question<keys_left>>},
      {"input-send-event", now<input_send_event>},
  });
  return kCommands;
}

}  // namespace

void execute(MachineControl& machine, const Request& request, Reply reply) {
  const auto all = commands();
  const auto found = std::ranges::find(all, request.command, &Command::name);
  if (found == all.end()) {
    const std::scoped_lock lock(machine.pc().lock());
    reply(std::unexpected(
        Refusal{.error_class = "CommandNotFound",
                .description = fmt::format("The command {} has not been found", request.command)}));
    return;
  }
  Arguments arguments(request.arguments);
  found->run(machine, arguments, std::move(reply));
}

}  // namespace whistler::qmp
