#include "vmm/ctl/registry.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "vmm/test_folder.hpp"

using namespace whistler;

namespace {

struct Runtime {
  TestFolder folder;
  Runtime() { ::setenv("XDG_RUNTIME_DIR", (folder / "run").c_str(), 1); }
  ~Runtime() { ::unsetenv("XDG_RUNTIME_DIR"); }
  [[nodiscard]] RunningMachine machine() const {
    return {.name = "xp", .description = folder / "xp.json", .socket = folder / "s", .process = ::getpid()};
  }
};

}  // namespace

TEST_CASE("machine_is_listed_as_long_as_it_is_registered", "[ctl]") {
  const Runtime runtime;
  REQUIRE(running_machines().empty());
  std::optional<Registration> registration(runtime.machine());
  REQUIRE(running_machines().size() == 1);
  CHECK(monitor_of("xp") == runtime.folder / "s");
  CHECK(monitor_of(runtime.folder / "xp.json") == runtime.folder / "s");
  registration.reset();
  CHECK(running_machines().empty());
  CHECK(monitor_of("xp").error().code == ErrorCode::kNotFound);
}

TEST_CASE("what_dead_machines_leave_is_removed_and_foreign_files_stay", "[ctl]") {
  const Runtime runtime;
  const Registration registration(runtime.machine());
  const auto stale = runtime.folder / "run/whistler/999999999.machine";
  const auto foreign = runtime.folder / "run/whistler/note.txt";
  std::ofstream(stale) << R"({"name":"a","description":"b","socket":"c","process":999999999})";
  std::ofstream(foreign) << "x";
  CHECK(running_machines().size() == 1);
  CHECK_FALSE(std::filesystem::exists(stale));
  CHECK(std::filesystem::exists(foreign));
}
