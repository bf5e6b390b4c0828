#include "vmm/plan/work_folder.hpp"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "vmm/test_folder.hpp"

using namespace whistler;
using namespace whistler::plan;

namespace {

namespace fs = std::filesystem;

/// TMPDIR is a folder of the test's own meanwhile.
class Temporary {
 public:
  Temporary() { ::setenv("TMPDIR", (folder_ / "").c_str(), 1); }
  ~Temporary() { ::unsetenv("TMPDIR"); }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  [[nodiscard]] fs::path parent() const { return folder_ / ("whistler-test-" + std::to_string(::getuid())); }

 private:
  TestFolder folder_;
};

bool gone_soon(const fs::path& path) {
  for (int i = 0; i < 500 && fs::exists(path); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return !fs::exists(path);
}

}  // namespace

TEST_CASE("work folder: only this user may look into it, and it goes with its owner") {
  const Temporary temporary;
  fs::path path;
  {
    const auto folder = WorkFolder::create();
    REQUIRE(folder);
    path = folder->path();
    struct stat info{};
    REQUIRE(::stat(path.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0700);
    fs::create_directories(path / "deep" / "er");
    std::ofstream(path / "deep" / "file") << "x";
  }
  CHECK_FALSE(fs::exists(path));
}

TEST_CASE("work folder: it goes when its owner is killed") {
  const Temporary temporary;
  const auto child = ::fork();
  if (child == 0) {
    const auto folder = WorkFolder::create();
    std::ofstream(temporary.parent() / "name") << folder->path();
    ::raise(SIGKILL);
  }
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  std::string path;
  std::ifstream(temporary.parent() / "name") >> path;
  REQUIRE_FALSE(path.empty());
  CHECK(gone_soon(path));
}

TEST_CASE("work folder: what nobody holds is swept, what somebody holds stays") {
  const Temporary temporary;
  const auto first = WorkFolder::create();
  REQUIRE(first);
  const auto left = temporary.parent() / "run-left";
  fs::create_directories(left / "inside");
  const auto second = WorkFolder::create();
  REQUIRE(second);
  CHECK_FALSE(fs::exists(left));
  CHECK(fs::exists(first->path()));
  CHECK(fs::exists(second->path()));
}

TEST_CASE("work folder: a parent that others can write to is refused") {
  const Temporary temporary;
  fs::create_directory(temporary.parent());
  REQUIRE(::chmod(temporary.parent().c_str(), 0777) == 0);
  CHECK_FALSE(WorkFolder::create());
}
