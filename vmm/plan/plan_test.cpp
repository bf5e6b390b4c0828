#include "vmm/plan/plan.hpp"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "vmm/test_folder.hpp"

using namespace whistler;
using namespace whistler::plan;

namespace {

constexpr const char* kMachine = R"("machine": {"memory": "16M"})";

std::string complaint(std::string_view text, const Variables& variables = {}) {
  const auto plans = parse_plans(text, "/folder/p.json", variables);
  return plans ? "none" : plans.error().message;
}

std::string with_steps(std::string_view steps) {
  return fmt::format(R"({{{}, "steps": [{}]}})", kMachine, steps);
}

/// A plan of one step, and one that makes it a plan.
std::string complaint_of_step(std::string_view step) {
  return complaint(with_steps(fmt::format(R"({}, {{"wait_serial": "x"}})", step)));
}

Plan only(std::string_view text) {
  auto plans = parse_plans(text, "/folder/p.json");
  INFO((plans ? "" : plans.error().message));
  REQUIRE(plans);
  REQUIRE(plans->size() == 1);
  return plans->front();
}

}  // namespace

TEST_CASE("plan: every step is read") {
  const auto plan = only(with_steps(R"(
      {"wait_serial": "a"}, {"wait_screen": "b", "timeout": 5}, {"wait_debug": "c", "name": "my own"},
      {"wait_event": "RESET"}, {"wait_still": 2}, {"wait_still": {"seconds": 1.5, "pixels": 9}},
      {"wait_image": {"file": "a.png", "mask": "m.png", "x": 1, "y": 2, "tolerance": 3, "different": 0.5}},
      {"type": "ab"}, {"keys": "ctrl-c"}, {"pointer": {"move": [5, -6], "click": "left", "clicks": 2}},
      {"send_serial": "hi\n"}, {"command": "true"}, {"command": {"text": "x", "status": 1, "output": "y"}},
      {"power_button": true}, {"reset_button": true}, {"sleep": 0.5}, {"wait_exit_value": 42})"));
  REQUIRE(plan.script->steps.size() == 17);
  CHECK(plan.name == "p");
  CHECK(plan.script->steps[0].name == "wait_serial \"a\"");
  CHECK(plan.script->steps[0].time_limit == 120);
  CHECK(plan.script->steps[1].time_limit == 5);
  CHECK(plan.script->steps[2].name == "my own");
  CHECK(std::get<WaitImage>(plan.script->steps[6].action).file == "/folder/a.png");
  CHECK(std::get<Type>(plan.script->steps[7].action).typed.size() == 4);
  CHECK(std::get<Pointer>(plan.script->steps[9].action).by == std::pair(5, -6));
  CHECK(std::get<WaitExit>(plan.script->steps[16].action).status == 85);
  CHECK(plan.memory == 16 << 20);
}

TEST_CASE("plan: unknown keys name their path and the nearest key") {
  CHECK_THAT(complaint(R"({"machin": {}, "steps": []})"), Catch::Contains("\"machine\""));
  CHECK_THAT(complaint_of_step(R"({"wait_serail": "x"})"),
             Catch::Contains("/folder/p.json: steps[0].wait_serail") && Catch::Contains("\"wait_serial\""));
  CHECK_THAT(complaint_of_step(R"({"sleep": 1, "tiemout": 2})"), Catch::Contains("\"timeout\""));
  CHECK_THAT(complaint_of_step(R"({"wait_still": {"second": 1}})"),
             Catch::Contains("steps[0].wait_still.second") && Catch::Contains("\"seconds\""));
}

TEST_CASE("plan: a step does one thing") {
  CHECK_THAT(complaint_of_step(R"({"sleep": 1, "type": "x"})"), Catch::Contains("does two things"));
  CHECK_THAT(complaint_of_step(R"({"timeout": 1})"),
             Catch::Contains("does nothing; it needs one of wait_serial"));
  CHECK_THAT(complaint_of_step("5"), Catch::Contains("steps[0]: is 5 where an object"));
}

TEST_CASE("plan: one that could not fail is refused") {
  CHECK_THAT(complaint(with_steps(R"({"sleep": 1}, {"type": "x"})")), Catch::Contains("would always pass"));
  CHECK_THAT(complaint(with_steps("")), Catch::Contains("would always pass"));
  CHECK_THAT(complaint_of_step(R"({"wait_serial": ".*"})"), Catch::Contains("empty text"));
  CHECK_THAT(complaint(fmt::format("{{{}}}", kMachine)), Catch::Contains("steps: is missing"));
}

TEST_CASE("plan: nothing follows the machine's end") {
  CHECK_THAT(complaint_of_step(R"({"wait_power_off": true})"), Catch::Contains("follows the machine's end"));
  CHECK_THAT(complaint_of_step(R"({"wait_exit": 0})"), Catch::Contains("follows the machine's end"));
}

TEST_CASE("plan: wrong values are refused with their path") {
  for (const auto& [step, word] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"wait_serial": 5})", "steps[0].wait_serial"},
           {R"({"wait_serial": "("})", "regular expression"},
           {R"({"wait_event": "SHUTDOWN"})", "must be one of POWERDOWN"},
           {R"({"power_button": false})", "must be true"},
           {R"({"sleep": -1})", "a number from 0"},
           {R"({"sleep": 1, "timeout": 0})", "steps[0].timeout"},
           {R"({"type": ""})", "steps[0].type: is empty"},
           {R"({"type": "<nokey>"})", "steps[0].type"},
           {R"({"keys": "ctrl-x-nokey"})", "steps[0].keys"},
           {R"({"pointer": {}})", "steps[0].pointer.move: is missing"},
           {R"({"pointer": {"move": [1]}})", "two numbers"},
           {R"({"pointer": {"move": [1, 1e9]}})", "whole number"},
           {R"({"pointer": {"move": [1, 2], "clicks": 2}})", "of no use"},
           {R"({"send_serial": ""})", "is empty"},
           {R"({"command": "a\nb"})", "one line"},
           {R"({"login": {"password": "x"}})", "steps[0].login.user: is missing"},
           {R"({"login": {"user": "a\nb"}})", "line end"},
           {R"({"login": {"user": "a", "prompt": "("}})", "steps[0].login.prompt"},
           {R"({"eject": ""})", "steps[0].eject: is empty"},
           {R"({"eject": {"force": true}})", "steps[0].eject.drive: is missing"},
           {R"({"eject": {"drive": ""}})", "steps[0].eject.drive: is empty"},
           {R"({"insert": {"drive": "cd0"}})", "steps[0].insert.file: is missing"},
           {R"({"insert": {"drive": "cd0", "file": "${no}/a.iso"}})", "--var no=VALUE"},
           {R"({"insert": {"drive": "cd0", "folder": "f", "file": "a.iso"}})",
            "steps[0].insert.folder: stands"},
           {R"({"wait_ocr": 5})", "steps[0].wait_ocr"},
           {R"({"wait_ocr": {"language": "eng"}})", "steps[0].wait_ocr.text: is missing"},
           {R"({"wait_ocr": {"text": "x", "language": "-eng"}})", "steps[0].wait_ocr.language: must be"},
           {R"({"wait_size": [640]})", "steps[0].wait_size: must be two numbers: the width"},
           {R"({"wait_size": [640, 0]})", "steps[0].wait_size[1]: must be a whole number from 1"},
           {R"({"wait_image": {"x": 1}})", "steps[0].wait_image.file: is missing"},
           {R"({"wait_image": {"file": "${no}/a.png"}})", "--var no=VALUE"},
           {R"({"wait_exit": 256})", "from 0 to 255"},
           {R"({"wait_exit_value": 128})", "from 0 to 127"}}) {
    INFO(step);
    CHECK_THAT(complaint_of_step(step), Catch::Contains(word));
  }
}

TEST_CASE("plan: drives whose media are made from folders stand behind the machine's own") {
  const auto plan = only(R"({"machine": {"memory": "16M", "drives": [{"file": "a.raw", "format": "raw"}]},
      "folders": [{"id": "data", "unit": 1, "from": "in", "size": "64M"},
                  {"id": "cd", "media": "cdrom", "bus": 1, "from": "/tools"}],
      "steps": [{"wait_exit": 0}, {"copy_out": "data"},
                {"copy_out": {"drive": "data", "expect": {"a/b.txt": "x"}}}]})");
  REQUIRE(plan.folders.size() == 2);
  CHECK(plan.folders[0].from == "/folder/in");
  CHECK(plan.folders[0].size == 64 << 20);
  CHECK(plan.folders[1].optical);
  CHECK(plan.machine["drives"].size() == 3);
  CHECK(plan.machine["drives"][2]["id"] == "cd");
  CHECK(std::get<CopyOut>(plan.script->steps[2].action).expect[0].first == "a/b.txt");
}

TEST_CASE("plan: wrong folders are refused with their path") {
  const auto with = [](std::string_view folder, std::string_view step = R"({"wait_exit": 0})") {
    return complaint(
        fmt::format(R"({{"machine": {{"memory": "16M", "drives": [{{"file": "a", "format": "raw"}}]}},
        "folders": [{}], "steps": [{}]}})",
                    folder, step));
  };
  CHECK_THAT(with(R"({"unit": 1})"), Catch::Contains("folders[0].id: is missing"));
  CHECK_THAT(with(R"({"id": "../x", "unit": 1})"), Catch::Contains("folders[0].id: must have"));
  CHECK_THAT(with(R"({"id": "a", "unit": 1, "form": "x"})"), Catch::Contains("\"from\""));
  CHECK_THAT(with(R"({"id": "a", "unit": 1, "from": ""})"), Catch::Contains("folders[0].from: is empty"));
  CHECK_THAT(with(R"({"id": "a", "media": "cdrom", "unit": 1})"),
             Catch::Contains("folders[0].from: is missing"));
  CHECK_THAT(with(R"({"id": "a", "media": "cdrom", "unit": 1, "from": "x", "size": "64M"})"),
             Catch::Contains("folders[0].size: is of no use"));
  CHECK_THAT(with(R"({"id": "a", "unit": 1, "size": "31M"})"), Catch::Contains("folders[0].size"));
  CHECK_THAT(with(R"({"id": "a", "unit": 1, "size": 33554433})"), Catch::Contains("whole number of MiB"));
  CHECK_THAT(with(R"({"id": "a"})"), Catch::Contains("folders[0].unit: bus 0 unit 0 is taken"));
  CHECK_THAT(with(R"({"id": "a", "unit": 1}, {"id": "a", "bus": 1})"), Catch::Contains("folders[1].id"));
}

TEST_CASE("plan: files are taken out of disks that are made from folders, after the machine's end") {
  const auto with = [](std::string_view steps) {
    return complaint(fmt::format(R"({{{}, "steps": [{}], "folders":
        [{{"id": "a"}}, {{"id": "cd", "media": "cdrom", "bus": 1, "from": "x"}}]}})",
                                 kMachine, steps));
  };
  CHECK_THAT(with(R"({"wait_serial": "x"}, {"copy_out": "a"})"),
             Catch::Contains("steps[1]: copy_out must follow"));
  CHECK_THAT(with(R"({"wait_exit": 0}, {"copy_out": "a"}, {"sleep": 1})"),
             Catch::Contains("only copy_out may"));
  CHECK_THAT(with(R"({"wait_exit": 0}, {"copy_out": "b"})"),
             Catch::Contains("\"b\" is not the id of a disk"));
  CHECK_THAT(with(R"({"wait_exit": 0}, {"copy_out": "cd"})"),
             Catch::Contains("\"cd\" is not the id of a disk"));
  for (const auto* name : {"", "/etc/passwd", "../a", "a/../../b", "."}) {
    INFO(name);
    CHECK_THAT(with(fmt::format(
                   R"({{"wait_exit": 0}}, {{"copy_out": {{"drive": "a", "expect": {{"{}": "x"}}}}}})", name)),
               Catch::Contains("must be the name of a file on the disk"));
  }
}

TEST_CASE("plan: the machine is checked, and its errors have their path in the plan") {
  CHECK_THAT(complaint(R"({"machine": {"memroy": 1}, "steps": [{"wait_serial": "x"}]})"),
             Catch::Contains("p.json: machine.memroy") && Catch::Contains("\"memory\""));
  CHECK_THAT(complaint(R"({"machine": "none.json", "steps": [{"wait_serial": "x"}]})"),
             Catch::Contains("/folder/none.json: no such file"));
}

TEST_CASE("plan: a machine in a file of its own, whose paths are relative to it") {
  const TestFolder folder;
  std::ofstream(folder / "m.json") << R"({"memory": "16M", "vnc": {"port": 5901}, "boot": {"kernel": "k"},
      "serial": [{"backend": "stdio"}], "drives": [{"file": "a.raw", "format": "raw"}]})";
  std::ofstream(folder / "p.json") << R"({"machine": "m.json", "steps": [{"wait_serial": "x"}]})";
  const auto plans = load_plans(folder / "p.json");
  REQUIRE(plans);
  const auto& machine = plans->front().machine;
  CHECK(machine["drives"][0]["file"] == folder / "a.raw");
  CHECK(machine["boot"]["kernel"] == folder / "k");
  CHECK_FALSE(machine.contains("vnc"));
  CHECK_FALSE(machine.contains("serial"));
}

TEST_CASE("plan: the matrix makes a plan for each combination") {
  const auto plans = parse_plans(R"({"name": "m", "machine": {"memory": "16M", "cpu": {}},
      "steps": [{"wait_serial": "x"}],
      "matrix": {"memory": ["16M", "32M", "64M"],
                 "pae": [{"cpu.features.pae": true, "cpu.cores": 1}, {"cpu.features.pae": false, "cpu.cores": 2}]}})",
                                 "/p.json");
  REQUIRE(plans);
  REQUIRE(plans->size() == 6);
  CHECK(plans->at(1).name == "m [memory=32M, pae=1]");
  CHECK(plans->at(1).memory == 32 << 20);
  CHECK(plans->at(5).name == "m [memory=64M, pae=2]");
  CHECK(plans->at(5).cores == 2);
  CHECK(plans->at(5).script == plans->at(0).script);  // a copy for each would be gigabytes
  CHECK_FALSE(plans->at(5).machine["cpu"]["features"]["pae"].get<bool>());
}

TEST_CASE("plan: those that go on from another stand behind it") {
  const auto plans = parse_plans(R"({"name": "p", "machine": {"memory": "16M"}, "timeout": 50,
      "steps": [{"wait_serial": "x"}], "matrix": {"memory": ["16M", "32M"]},
      "then": [{"name": "a", "steps": [{"wait_serial": "y"}]},
               {"name": "b", "steps": [{"sleep": 1}, {"wait_serial": "z"}], "timeout": 9}]})",
                                 "/p.json");
  REQUIRE(plans);
  REQUIRE(plans->size() == 6);
  CHECK(plans->at(3).name == "p [memory=32M]");
  CHECK(plans->at(3).after == 0);
  const auto& last = plans->at(5);
  CHECK(last.name == "p [memory=32M] > b");
  CHECK(last.after == 2);
  CHECK(last.memory == 32 << 20);
  CHECK(last.script->steps.size() == 2);
  CHECK(last.time_limit == 9);
  CHECK(plans->at(4).time_limit == 50);
  CHECK_THAT(complaint(R"({"machine": {}, "steps": [{"wait_serial": "x"}], "then": [{"steps": []}]})"),
             Catch::Contains("then[0]"));
}

TEST_CASE("plan: wrong values of the matrix are refused") {
  const auto matrix = [](std::string_view inner) {
    return complaint(
        fmt::format(R"({{{}, "steps": [{{"wait_serial": "x"}}], "matrix": {{{}}}}})", kMachine, inner));
  };
  CHECK_THAT(matrix(R"("memory": [])"), Catch::Contains("matrix.memory: must be an array"));
  CHECK_THAT(matrix(R"("memory": ["lots"])"), Catch::Contains("lots"));
  CHECK_THAT(matrix(R"("memory.x": [1])"), Catch::Contains("nothing below a plain value"));
  std::string many = R"("a0": 1)";
  for (int i = 1; i <= 64; ++i) {
    many += fmt::format(R"(, "a{}": 1)", i);
  }
  CHECK_THAT(matrix(fmt::format(R"("x": [{{{}}}])", many)),
             Catch::Contains("matrix.x[0]: has more than 64 keys"));
}

TEST_CASE("plan: variables stand in the machine, in set and in the matrix") {
  const Variables variables = {{"size", "32M"}, {"dir", "/some/where"}};
  const auto plans =
      parse_plans(R"({"machine": {"memory": "16M", "drives": [{"file": "${dir}/a.raw", "format": "raw"}]},
      "set": {"memory": "${size}"}, "steps": [{"wait_serial": "${not one}"}]})",
                  "/p.json", variables);
  INFO((plans ? "" : plans.error().message));
  REQUIRE(plans);
  CHECK(plans->front().memory == 32 << 20);
  CHECK(plans->front().machine["drives"][0]["file"] == "/some/where/a.raw");
  CHECK_THAT(complaint(R"({"machine": {"memory": "${size}"}, "steps": [{"wait_serial": "x"}]})"),
             Catch::Contains("--var size=VALUE"));
}

TEST_CASE("plan: what ends it at once") {
  const auto plan = only(fmt::format(R"({{{}, "steps": [{{"wait_serial": "x"}}],
      "fail_on": {{"panic": false, "hang": 30, "text": ["Oops", "BUG:"]}}}})",
                                     kMachine));
  CHECK_FALSE(plan.fail_on.panic);
  CHECK(plan.fail_on.blue_screen);
  CHECK(plan.fail_on.hang == 30);
  CHECK(plan.fail_on.text.size() == 2);
}

TEST_CASE("plan: files that are none") {
  const TestFolder folder;
  std::ofstream(folder / "empty.json");
  CHECK_FALSE(load_plans(folder / "none.json"));
  CHECK_FALSE(load_plans(folder / "empty.json"));
  CHECK_FALSE(load_plans(folder / ""));
  CHECK_FALSE(load_plans("/dev/zero"));
  CHECK_THAT(complaint("[1]"), Catch::Contains("object"));
  CHECK_THAT(complaint("{"), Catch::Contains("is not JSON"));
}
