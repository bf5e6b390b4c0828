// The monitor's commands on a machine without processors.
#include "vmm/monitor/qmp_commands.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "vmm/monitor/control_fake.hpp"
#include "vmm/test_folder.hpp"

using namespace whistler;
using namespace whistler::qmp;

namespace {

constexpr std::string_view kDrives = R"(
  "drives": [ { "id": "hda", "interface": "ide", "bus": 0, "unit": 0, "media": "disk", "file": "hda.raw",
                "format": "raw" },
              { "id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "file": "one.iso",
                "format": "raw" } ])";

struct Machine {
  TestFolder folder;
  std::unique_ptr<ControlFake> control;

  Machine() {
    for (const auto* name : {"hda.raw", "one.iso", "two.iso"}) {
      std::ofstream(folder / name) << std::string(1 << 20, name[0]);
    }
    control = ControlFake::make(kDrives, folder / "machine.json");
  }
  Answer<Json> ask(const std::string& command, Json arguments = Json::object()) {
    return control->ask({.command = command, .arguments = std::move(arguments)});
  }
  std::string refusal(const std::string& command, Json arguments = Json::object()) {
    const auto answer = ask(command, std::move(arguments));
    return answer ? "" : answer.error().description;
  }
  Json drive(std::size_t number) { return (*ask("query-block"))[number]; }
};

}  // namespace

TEST_CASE("eject_opens_the_tray_and_empties_it", "[monitor]") {
  Machine m;
  REQUIRE(m.drive(1)["inserted"]["file"] == (m.folder / "one.iso"));
  REQUIRE(m.ask("eject", {{"device", "cd0"}}) == Json::object());
  CHECK(m.drive(1)["tray_open"] == true);
  CHECK_FALSE(m.drive(1).contains("inserted"));
  REQUIRE(m.control->events.size() == 1);
  CHECK(m.control->events[0].name == "DEVICE_TRAY_MOVED");
  CHECK(m.control->events[0].data == Json{{"device", "cd0"}, {"id", "cd0"}, {"tray-open", true}});
  CHECK(m.ask("eject", {{"id", "cd0"}}) == Json::object());
}

TEST_CASE("change_of_media_closes_the_tray_over_the_new_disc", "[monitor]") {
  Machine m;
  const auto two = m.folder / "two.iso";
  REQUIRE(m.ask("blockdev-change-medium", {{"device", "cd0"}, {"filename", two}}) == Json::object());
  CHECK(m.drive(1)["inserted"]["file"] == two);
  CHECK(m.drive(1)["tray_open"] == false);
  CHECK(m.control->events.size() == 2);
}

TEST_CASE("change_of_media_to_a_bad_file_leaves_the_old_disc_in", "[monitor]") {
  Machine m;
  CHECK(m.refusal("blockdev-change-medium", {{"device", "cd0"}, {"filename", "/nowhere"}}) ==
        "Could not open '/nowhere': No such file or directory");
  CHECK(m.refusal("blockdev-change-medium",
                  {{"device", "cd0"}, {"filename", m.folder / "two.iso"}, {"format", "qcow2"}}) != "");
  CHECK(m.refusal("blockdev-change-medium", {{"device", "cd0"}, {"filename", "x"}, {"format", "nofmt"}}) ==
        "Unknown driver 'nofmt'");
  CHECK(m.drive(1)["inserted"]["file"] == (m.folder / "one.iso"));
  CHECK(m.control->events.empty());
}

TEST_CASE("media_commands_name_what_is_wrong_as_qemu_does", "[monitor]") {
  Machine m;
  CHECK(m.refusal("eject", {{"device", "hda"}}) == "Device 'hda' is not removable");
  CHECK(m.refusal("eject", {{"device", "x"}}) == "Device 'x' not found");
  CHECK(m.ask("eject", {{"device", "x"}}).error().error_class == "DeviceNotFound");
  CHECK(m.refusal("eject") == "Need exactly one of 'device' and 'id'");
  CHECK(m.refusal("blockdev-remove-medium", {{"id", "cd0"}}) == "Tray of device 'cd0' is not open");
  CHECK(m.refusal("block_resize", {{"device", "q"}, {"size", 512}}) ==
        "Cannot find device='q' nor node-name=''");
  CHECK(m.refusal("block_resize", {{"device", "hda"}, {"size", -1}}) == "Parameter 'size' expects a >0 size");
}

TEST_CASE("tray_moves_in_steps", "[monitor]") {
  Machine m;
  REQUIRE(m.ask("blockdev-open-tray", {{"id", "cd0"}}));
  CHECK(m.drive(1).contains("inserted"));
  REQUIRE(m.ask("blockdev-remove-medium", {{"id", "cd0"}}));
  CHECK_FALSE(m.drive(1).contains("inserted"));
  REQUIRE(m.ask("blockdev-close-tray", {{"id", "cd0"}}));
  CHECK(m.drive(1)["tray_open"] == false);
}

TEST_CASE("disk_grows_and_does_not_shrink", "[monitor]") {
  Machine m;
  REQUIRE(m.ask("block_resize", {{"device", "hda"}, {"size", 2 << 20}}));
  CHECK(std::filesystem::file_size(m.folder / "hda.raw") == 2 << 20);
  CHECK(m.refusal("block_resize", {{"device", "hda"}, {"size", 1 << 20}}) != "");
}

TEST_CASE("requests_are_counted_by_drive", "[monitor]") {
  Machine m;
  auto& disk = *m.control->pc().drives()[0]->device();
  std::array<std::uint8_t, 512> sector{};
  const iovec piece{sector.data(), sector.size()};
  const IoVec pieces(&piece, 1);
  REQUIRE(sync_wait(m.control->pc().ring(), disk.writev(1024, pieces)));
  REQUIRE(sync_wait(m.control->pc().ring(), disk.readv(0, pieces)));
  REQUIRE_FALSE(sync_wait(m.control->pc().ring(), disk.readv(1 << 20, pieces)));
  REQUIRE(sync_wait(m.control->pc().ring(), disk.flush()));
  const auto stats = (*m.ask("query-blockstats"))[0]["stats"];
  CHECK(stats["wr_bytes"] == 512);
  CHECK(stats["wr_operations"] == 1);
  CHECK(stats["wr_highest_offset"] == 1536);
  CHECK(stats["rd_operations"] == 1);
  CHECK(stats["failed_rd_operations"] == 1);
  CHECK(stats["flush_operations"] == 1);
}

TEST_CASE("memory_is_saved_to_files", "[monitor]") {
  Machine m;
  const std::array<std::uint8_t, 4> bytes{1, 2, 3, 4};
  m.control->pc().board().memory().write(0x1FFE, bytes);
  const auto file = m.folder / "memory";
  REQUIRE(m.ask("pmemsave", {{"val", 0x1FFE}, {"size", 4}, {"filename", file}}));
  std::ifstream stream(file);
  std::string content;
  std::getline(stream, content);
  CHECK(content == "\1\2\3\4");
  CHECK(m.refusal("pmemsave", {{"val", 0}, {"size", 4}, {"filename", "/nowhere/q"}}) ==
        "Could not open '/nowhere/q': No such file or directory");
  CHECK(m.refusal("pmemsave", {{"val", 0}, {"filename", "q"}}) == "Parameter 'size' is missing");
  CHECK(m.refusal("memsave", {{"val", 0}, {"size", 4}, {"filename", file}, {"cpu-index", 9}}) ==
        "Parameter 'cpu-index' expects a CPU number");
}

TEST_CASE("human_monitor_answers_in_qemus_form", "[monitor]") {
  Machine m;
  const auto say = [&](const std::string& line) {
    return m.ask("human-monitor-command", {{"command-line", line}})->get<std::string>();
  };
  const std::array<std::uint8_t, 4> bytes{1, 2, 3, 4};
  m.control->pc().board().memory().write(0x1000, bytes);
  CHECK(say("info status") == "VM status: running\r\n");
  CHECK(say("stop").empty());
  CHECK(say("info status") == "VM status: paused\r\n");
  CHECK(say("xp /2xb 0x1000") == "0000000000001000: 0x01 0x02\r\n");
  CHECK(say("xp /1xw 4096") == "0000000000001000: 0x04030201\r\n");
  CHECK(say("foo") == "unknown command: 'foo'\r\n");
  CHECK(say("info nothing") == "unknown command: 'info nothing'\r\n");
  CHECK(say("sendkey nokey") == "invalid parameter: nokey\r\n");
  CHECK(say("sendkey ctrl-a").empty());
  CHECK(say("info pci").find("PCI device 8086:7010") != std::string::npos);
  CHECK(say("info block").find("one.iso (raw, read-only)") != std::string::npos);
  CHECK(say("eject cd0").empty());
  CHECK(say("info block").find("cd0: [not inserted]") != std::string::npos);
  CHECK(say("xp /99999999999999999999xb 0").find("items") != std::string::npos);
}

TEST_CASE("passwords_need_a_vnc_server", "[monitor]") {
  Machine m;
  CHECK(m.refusal("change-vnc-password", {{"password", "x"}}) == "Could not set password");
  CHECK(m.refusal("set_password", {{"protocol", "foo"}, {"password", "x"}}) ==
        "Parameter 'protocol' does not accept value 'foo'");
}
