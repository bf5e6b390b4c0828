// whistler ctl: talks to a running machine.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <iterator>
#include <thread>

#include "vmm/commands/commands.hpp"
#include "vmm/commands/common.hpp"
#include "vmm/ctl/monitor_client.hpp"
#include "vmm/ctl/registry.hpp"
#include "vmm/exit_status.hpp"
#include "vmm/plan/boot_command.hpp"

namespace whistler {
namespace {

using Json = nlohmann::json;

constexpr int kRefused = 1;  // the machine says no, or is not there

struct CtlOptions {
  std::string machine, command;
  std::vector<std::string> arguments;
  std::string drive, format;
  bool json = false, force = false, no_wait = false;
};

struct Context {
  MonitorClient& monitor;
  const CtlOptions& options;
};

void print_json(const Json& json) {
  std::cout << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
}

Result<void> tell(const Context& c, const std::string& command, Json arguments = Json::object()) {
  auto answer = c.monitor.ask(command, std::move(arguments));
  if (!answer) {
    return std::unexpected(answer.error());
  }
  if (c.options.json) {
    print_json(*answer);
  }
  return {};
}

/// An answer, shown as it is with --json and by `show` otherwise.
Result<void> show(const Context& c, const std::string& command,
                  const std::function<void(const Json&)>& print) {
  const auto answer = c.monitor.ask(command);
  if (!answer) {
    return std::unexpected(answer.error());
  }
  if (c.options.json) {
    print_json(*answer);
  } else {
    print(*answer);
  }
  return {};
}

Result<void> type(const Context& c, const std::vector<plan::Typing>& typing) {
  Json keys = Json::array();
  const auto send = [&]() -> Result<void> {
    if (keys.empty()) {
      return {};
    }
    auto answer = c.monitor.ask("x-type-keys", {{"keys", std::exchange(keys, Json::array())}});
    return answer ? Result<void>{} : std::unexpected(answer.error());
  };
  constexpr std::size_t kAtOnce = 256;
  for (const auto& one : typing) {
    if (!one.key.empty()) {
      keys.push_back({{"key", one.key}, {"down", one.down}});
    }
    if (one.key.empty() || keys.size() >= kAtOnce) {
      if (auto sent = send(); !sent) {
        return sent;
      }
      std::this_thread::sleep_for(std::chrono::duration<double>(one.wait));
    }
  }
  return send();
}

Result<void> type_parsed(const Context& c, const Result<std::vector<plan::Typing>>& typing) {
  return typing ? type(c, *typing) : std::unexpected(typing.error());
}

/// The characters of `text` as they are: "<" and line ends are keys like the others.
Result<void> paste(const Context& c, const std::string& text) {
  std::vector<plan::Typing> all;
  for (const char character : text) {
    if (character == '\r') {
      continue;
    }
    const auto typing = character == '\n'   ? plan::parse_key_chord("ret")
                        : character == '\t' ? plan::parse_key_chord("tab")
                        : character == '<'  ? plan::parse_key_chord("shift-comma")
                                            : plan::parse_boot_command(std::string(1, character));
    if (!typing) {
      return std::unexpected(typing.error());
    }
    all.insert(all.end(), typing->begin(), typing->end());
  }
  return type(c, all);
}

void print_stats(const Json& drives) {
  fmt::print("{:<10} {:>12} {:>14} {:>12} {:>14} {:>8}\n", "DRIVE", "READS", "BYTES READ", "WRITES",
             "BYTES WRITTEN", "FLUSHES");
  for (const auto& drive : drives) {
    const auto& s = drive["stats"];
    fmt::print("{:<10} {:>12} {:>14} {:>12} {:>14} {:>8}\n", drive["device"].get<std::string>(),
               s["rd_operations"].get<std::uint64_t>(), s["rd_bytes"].get<std::uint64_t>(),
               s["wr_operations"].get<std::uint64_t>(), s["wr_bytes"].get<std::uint64_t>(),
               s["flush_operations"].get<std::uint64_t>());
  }
}

void print_screen(const Json& screen) {
  if (!screen.contains("rows")) {
    fmt::print("(graphics, {} x {}: take a screenshot)\n", screen["width"].get<unsigned>(),
               screen["height"].get<unsigned>());
    return;
  }
  for (const auto& row : screen["rows"]) {
    auto text = row.get<std::string>();
    text.erase(text.find_last_not_of(' ') + 1);
    std::cout << text << "\n";
  }
}

void print_jobs(const Json& jobs) {
  fmt::print("{:<16} {:<8} {:<10} {:>14} {:>14} {:>6}\n", "JOB", "KIND", "STATUS", "DONE", "OF", "%");
  for (const auto& job : jobs) {
    const auto done = job["offset"].get<std::uint64_t>();
    const auto all = job["len"].get<std::uint64_t>();
    fmt::print("{:<16} {:<8} {:<10} {:>14} {:>14} {:>6}\n", one_line(job["device"].get<std::string>()),
               job["type"].get<std::string>(), job["status"].get<std::string>(), done, all,
               all == 0 ? 100 : done * 100 / all);
  }
}

std::string absolute(const std::string& file) { return std::filesystem::absolute(file).string(); }

/// The drive that is named, or the only disk.
Result<std::string> chosen_drive(const Context& c) {
  if (!c.options.drive.empty()) {
    return c.options.drive;
  }
  const auto drives = c.monitor.ask("query-block");
  if (!drives) {
    return std::unexpected(drives.error());
  }
  std::vector<std::string> disks;
  for (const auto& drive : *drives) {
    if (!drive["removable"].get<bool>()) {
      disks.push_back(drive["device"].get<std::string>());
    }
  }
  if (disks.size() != 1) {
    return fail(ErrorCode::kInvalid,
                disks.empty() ? "the machine has no disk"
                              : fmt::format("which disk? --device is one of {}", fmt::join(disks, ", ")));
  }
  return disks[0];
}

Result<void> snapshot_disk(const Context& c, const std::string& file) {
  const auto drive = chosen_drive(c);
  if (!drive) {
    return std::unexpected(drive.error());
  }
  auto done = tell(c, "blockdev-snapshot-sync", {{"device", *drive}, {"snapshot-file", absolute(file)}});
  if (done && !c.options.json) {
    fmt::print(
        "{}: what the guest writes goes to {} from now on.\nThe machine must be started from that file next "
        "time: put it into its description.\n",
        *drive, file);
  }
  return done;
}

/// Until the job is over; how it ended.
Result<void> wait_for_job(const Context& c, const std::string& id) {
  constexpr std::chrono::milliseconds kPause{200};
  while (true) {
    const auto jobs = c.monitor.ask("query-jobs");
    if (!jobs) {
      return std::unexpected(jobs.error());
    }
    const auto job = std::ranges::find_if(*jobs, [&](const Json& each) { return each["id"] == id; });
    if (job == jobs->end()) {
      return fail(ErrorCode::kCancelled, "somebody has cancelled it");
    }
    if ((*job)["status"] == "concluded") {
      static_cast<void>(c.monitor.ask("job-dismiss", {{"id", id}}));
      return job->contains("error") ? fail(ErrorCode::kIo, (*job)["error"].get<std::string>())
                                    : Result<void>{};
    }
    std::this_thread::sleep_for(kPause);
  }
}

Result<void> backup(const Context& c, const std::string& file) {
  const auto drive = chosen_drive(c);
  if (!drive) {
    return std::unexpected(drive.error());
  }
  const auto id = "backup-" + *drive;
  auto done = tell(c, "drive-backup",
                   {{"device", *drive},
                    {"job-id", id},
                    {"target", absolute(file)},
                    {"format", c.options.format},
                    {"sync", "full"},
                    {"auto-dismiss", c.options.no_wait}});
  return done && !c.options.no_wait ? wait_for_job(c, id) : done;
}

struct Command {
  std::string_view name, arguments, help;
  std::size_t least, most;
  Result<void> (*run)(const Context&, const std::vector<std::string>&);
};

using Words = std::vector<std::string>;

constexpr auto kCommands = std::to_array<Command>({
    {"status", "", "Whether it runs", 0, 0,
     [](const Context& c, const Words&) {
       return show(c, "query-status",
                   [](const Json& s) { fmt::print("{}\n", s["status"].get<std::string>()); });
     }},
    {"stop", "", "Hold its processors and its time", 0, 0,
     [](const Context& c, const Words&) { return tell(c, "stop"); }},
    {"cont", "", "Let them go on", 0, 0, [](const Context& c, const Words&) { return tell(c, "cont"); }},
    {"reset", "", "Press the reset button", 0, 0,
     [](const Context& c, const Words&) { return tell(c, "system_reset"); }},
    {"powerdown", "", "Press the power button: the guest shuts down if it wants to", 0, 0,
     [](const Context& c, const Words&) { return tell(c, "system_powerdown"); }},
    {"quit", "", "End it at once; its disks are closed, the guest is not asked", 0, 0,
     [](const Context& c, const Words&) { return tell(c, "quit"); }},
    {"key", "KEYS...", "Press keys together: ctrl-alt-delete", 1, 64,
     [](const Context& c, const Words& words) {
       Result<void> done;
       for (std::size_t i = 0; i < words.size() && done; ++i) {
         done = type_parsed(c, plan::parse_key_chord(words[i]));
       }
       return done;
     }},
    {"type", "TEXT", "Type, with keys in angle brackets: 'dir<enter>'", 1, 1,
     [](const Context& c, const Words& words) { return type_parsed(c, plan::parse_boot_command(words[0])); }},
    {"paste", "[TEXT]", "Type the text, or standard input, letter by letter", 0, 1,
     [](const Context& c, const Words& words) {
       return paste(c, words.empty() ? std::string(std::istreambuf_iterator<char>(std::cin), {}) : words[0]);
     }},
    {"screenshot", "FILE.png", "Write a picture of the screen", 1, 1,
     [](const Context& c, const Words& words) {
       return tell(c, "screendump", {{"filename", absolute(words[0])}, {"format", "png"}});
     }},
    {"text", "", "Print the screen, where it shows text", 0, 0,
     [](const Context& c, const Words&) { return show(c, "x-screen-text", print_screen); }},
    {"eject", "DRIVE", "Open a CD-ROM drive and take the disc out (--force: though it is locked)", 1, 1,
     [](const Context& c, const Words& words) {
       return tell(c, "eject", {{"device", words[0]}, {"force", c.options.force}});
     }},
    {"insert", "DRIVE FILE", "Put another disc in", 2, 2,
     [](const Context& c, const Words& words) {
       return tell(c, "blockdev-change-medium",
                   {{"device", words[0]}, {"filename", absolute(words[1])}, {"force", c.options.force}});
     }},
    {"snapshot-disk", "FILE", "Keep a disk as it is: the guest writes to FILE from now on", 1, 1,
     [](const Context& c, const Words& words) { return snapshot_disk(c, words[0]); }},
    {"backup", "FILE", "Copy a disk as it is now; the guest goes on", 1, 1,
     [](const Context& c, const Words& words) { return backup(c, words[0]); }},
    {"jobs", "", "What is being done to its disks", 0, 0,
     [](const Context& c, const Words&) { return show(c, "query-block-jobs", print_jobs); }},
    {"cancel", "JOB", "Give up a job", 1, 1,
     [](const Context& c, const Words& words) { return tell(c, "job-cancel", {{"id", words[0]}}); }},
    {"stats", "", "What went through its drives", 0, 0,
     [](const Context& c, const Words&) { return show(c, "query-blockstats", print_stats); }},
});

int list(bool json) {
  const auto machines = running_machines();
  if (json) {
    Json all = Json::array();
    for (const auto& m : machines) {
      all.push_back(
          {{"name", m.name}, {"process", m.process}, {"description", m.description}, {"socket", m.socket}});
    }
    print_json(all);
    return 0;
  }
  fmt::print("{:<20} {:>8}  {}\n", "NAME", "PROCESS", "MONITOR");
  for (const auto& m : machines) {
    fmt::print("{:<20} {:>8}  {}\n", one_line(m.name), m.process, one_line(m.socket));
  }
  return 0;
}

int ctl(const CtlOptions& options) {
  if (options.machine == "list" && options.command.empty()) {
    return list(options.json);
  }
  const auto found = std::ranges::find(kCommands, options.command, &Command::name);
  if (found == kCommands.end()) {
    report(options.command.empty() ? "ctl: what is to be done? see whistler ctl --help"
                                   : options.command + ": is not a command; see whistler ctl --help");
    return kExitUsage;
  }
  if (options.arguments.size() < found->least || options.arguments.size() > found->most) {
    report(fmt::format("{}: its arguments are: {}", found->name,
                       found->arguments.empty() ? "none" : found->arguments));
    return kExitUsage;
  }
  const auto socket = monitor_of(options.machine);
  if (!socket) {
    report(socket.error().message);
    return kExitUsage;
  }
  auto monitor = MonitorClient::connect(*socket);
  if (!monitor) {
    report(monitor.error().message);
    return kRefused;
  }
  const auto done = found->run({.monitor = *monitor, .options = options}, options.arguments);
  if (!done) {
    report(fmt::format("{}: {}", found->name, done.error().message));
    return kRefused;
  }
  return 0;
}

std::string help() {
  std::string text =
      "MACHINE is the name of a running machine, its description or its monitor's socket.\n\nCommands:\n";
  for (const auto& command : kCommands) {
    text += fmt::format("  {:<28}{}\n", fmt::format("{} {}", command.name, command.arguments), command.help);
  }
  text +=
      "\nA machine has a monitor if its description has \"monitor\": {\"socket\": \"PATH\"} or it was "
      "started with\n"
      "--qmp unix:PATH,server.\n\n"
      "Exit status: 0 done; 1 the machine refuses or is not there; 2 arguments.\n\n"
      "Example: whistler ctl list\n"
      "         whistler ctl winxp screenshot now.png\n"
      "         whistler ctl winxp.json insert cd0 drivers.iso\n"
      "         whistler ctl winxp backup --device hda monday.qcow2";
  return text;
}

}  // namespace

void add_ctl_command(CLI::App& app, int& status) {
  auto* command =
      app.add_subcommand("ctl", "Talk to a running machine: stop, type, screenshot, change discs");
  auto options = std::make_shared<CtlOptions>();
  command->add_option("MACHINE", options->machine, "The machine; or: list, for all that run")->required();
  command->add_option("COMMAND", options->command, "What to do; see below");
  command->add_option("ARGUMENTS", options->arguments, "What it needs");
  command->add_flag("--json", options->json, "Answers for scripts, as QMP gives them");
  command->add_option("--device", options->drive, "The disk to snapshot or back up, if there are several");
  command->add_option("--format", options->format, "Of the backup: qcow2 or raw")
      ->default_val("qcow2")
      ->check(CLI::IsMember({"qcow2", "raw"}));
  command->add_flag("--no-wait", options->no_wait, "Begin the backup, and do not wait for its end");
  command->add_flag("--force", options->force, "Open a drive though the guest has locked it");
  command->footer(help());
  command->callback([options, &status] { status = ctl(*options); });
}

}  // namespace whistler
