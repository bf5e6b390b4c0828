// Media on servers that never answer: nobody else waits for them.
#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>

#include "vmm/monitor/control_fake.hpp"
#include "vmm/test_folder.hpp"
#include "vmm/unix_socket.hpp"

using namespace whistler;
using namespace whistler::qmp;

namespace {

constexpr std::string_view kDrives = R"(
  "drives": [ { "id": "hda", "interface": "ide", "bus": 0, "unit": 0, "media": "disk", "file": "hda.raw",
                "format": "raw" },
              { "id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "file": "one.iso",
                "format": "raw" } ])";

/// A machine beside a server that takes connections and says nothing.
struct Machine {
  TestFolder folder;
  UniqueFd silent;
  std::unique_ptr<ControlFake> control;
  std::string disc = "nbd+unix:///?socket=" + (folder / "silent");

  Machine() {
    for (const auto* name : {"hda.raw", "one.iso"}) {
      std::ofstream(folder / name) << std::string(1 << 20, name[0]);
    }
    auto listener = listen_unix(folder / "silent");
    REQUIRE(listener);
    silent = std::move(*listener);
    control = ControlFake::make(kDrives, folder / "machine.json");
  }
  PendingWork& pending() { return control->pc().pending(); }
  /// Begins a command; its answer comes to `answer`.
  void begin(const std::string& command, Json arguments, std::optional<Answer<Json>>& answer) {
    execute(*control, {.command = command, .arguments = std::move(arguments)},
            [&answer](Answer<Json> given) { answer = std::move(given); });
  }
  std::string refusal(const std::string& command, Json arguments) {
    const auto answer = control->ask({.command = command, .arguments = std::move(arguments)});
    return answer ? "" : answer.error().description;
  }
  std::string inserted() {
    return (*control->ask({.command = "query-block"}))[1]["inserted"]["file"].get<std::string>();
  }
};

}  // namespace

TEST_CASE("others_are_served_while_a_medium_is_opened", "[monitor]") {
  Machine m;
  std::optional<Answer<Json>> answer;
  m.begin("blockdev-change-medium", {{"device", "cd0"}, {"filename", m.disc}}, answer);
  CHECK_FALSE(answer.has_value());
  CHECK((*m.control->ask({.command = "query-status"}))["status"] == "running");
  CHECK(m.inserted() == (m.folder / "one.iso"));
  CHECK(m.refusal("eject", {{"device", "cd0"}}) == "Node 'cd0' is busy: another command works on it");
  CHECK(m.refusal("block_resize", {{"device", "hda"}, {"size", 2 << 20}}) == "");
  CHECK_FALSE(answer.has_value());
  {
    const std::scoped_lock lock(m.control->pc().lock());
    m.control->pc().close_drives();
  }
  REQUIRE(answer.has_value());
  CHECK(answer->error().description == "Could not open '" + m.disc + "': the machine ends");
}

TEST_CASE("server_that_never_answers_is_given_up", "[monitor]") {
  Machine m;
  m.pending().set_patience(std::chrono::milliseconds(50));
  const auto no_answer = "Could not open '" + m.disc + "': no answer in 0.05 s";
  CHECK(m.refusal("blockdev-change-medium", {{"device", "cd0"}, {"filename", m.disc}}) == no_answer);
  CHECK(m.refusal("blockdev-change-medium", {{"device", "cd0"}, {"filename", m.disc}, {"format", "qcow2"}}) ==
        no_answer);
  CHECK(m.inserted() == (m.folder / "one.iso"));
  CHECK(m.control->events.empty());
  CHECK(m.refusal("blockdev-add", {{"driver", "raw"},
                                   {"node-name", "far"},
                                   {"file", {{"driver", "nbd"}, {"path", m.folder / "silent"}}}}) ==
        "Could not open node 'far': no answer in 0.05 s");
  CHECK(m.refusal("drive-mirror", {{"device", "hda"},
                                   {"target", m.disc},
                                   {"format", "raw"},
                                   {"mode", "existing"},
                                   {"sync", "full"}}) == no_answer);
  CHECK(m.refusal("eject", {{"device", "cd0"}}) == "");
}

TEST_CASE("human_monitor_waits_for_a_medium_too", "[monitor]") {
  Machine m;
  m.pending().set_patience(std::chrono::milliseconds(1));
  const auto text = m.control->ask(
      {.command = "human-monitor-command", .arguments = {{"command-line", "change cd0 " + m.disc}}});
  REQUIRE(text);
  CHECK(text->get<std::string>() == "Error: Could not open '" + m.disc + "': no answer in 0.001 s\r\n");
}
