#include "vmm/plan/folder_contents.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "vmm/test_folder.hpp"

using namespace whistler;
using namespace whistler::plan;

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kRoom = 1 << 20;

void write(const std::string& path, std::string_view text = "x") { std::ofstream(path) << text; }

std::string complaint(const std::string& folder, FileSystem file_system) {
  const auto found = look_through(folder, file_system, kRoom);
  return found ? "none" : found.error().message;
}

}  // namespace

TEST_CASE("folder: what it holds is counted, through all folders in it") {
  const TestFolder folder;
  write(folder / "b.txt", "12345");
  fs::create_directories(folder / "a/deep");
  write(folder / "a/deep/c", "678");
  const auto found = look_through(folder / "", FileSystem::kFat, kRoom);
  REQUIRE(found);
  CHECK(found->bytes == 8);
  CHECK(found->top == std::vector<std::string>{"a", "b.txt"});
}

TEST_CASE("folder: one that is none") {
  const TestFolder folder;
  write(folder / "file");
  CHECK_THAT(complaint(folder / "file", FileSystem::kIso), Catch::Contains("file: is no folder"));
  CHECK_THAT(complaint(folder / "gone", FileSystem::kIso), Catch::Contains("gone: is no folder"));
}

TEST_CASE("folder: links are not followed, and a FAT disk has none") {
  const TestFolder folder;
  fs::create_symlink(".", folder / "loop");
  fs::create_symlink("/etc/passwd", folder / "out");
  CHECK(complaint(folder / "", FileSystem::kIso) == "none");
  CHECK_THAT(complaint(folder / "", FileSystem::kFat), Catch::Contains("is a symbolic link"));
}

TEST_CASE("folder: what is neither file nor folder is refused") {
  const TestFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THAT(complaint(folder / "", FileSystem::kIso),
             Catch::Contains("pipe: is neither a file nor a folder"));
}

TEST_CASE("folder: names that a FAT disk cannot hold") {
  for (const auto* name :
       {"a:b", "a\\b", "what?", "*", "a|b", "<", "a\"b", "ends.", "ends ", "CON", "nul.txt", "Com1"}) {
    INFO(name);
    const TestFolder folder;
    write(folder / name);
    CHECK_THAT(complaint(folder / "", FileSystem::kFat),
               Catch::Contains("a name that a FAT disk cannot hold"));
    CHECK(complaint(folder / "", FileSystem::kIso) == "none");
  }
  for (const auto* name :
       {"Müller.txt", "-dash", " space in front", "two.dots.here", "console", "[1]+,;=~", "日本"}) {
    INFO(name);
    const TestFolder folder;
    write(folder / name);
    CHECK(complaint(folder / "", FileSystem::kFat) == "none");
  }
}

TEST_CASE("folder: names that no medium can hold") {
  for (const auto* name : {"new\nline", "\xff\xfe", "\x7f", "bell\a"}) {
    INFO(name);
    const TestFolder folder;
    write(folder / name);
    CHECK_THAT(complaint(folder / "", FileSystem::kIso),
               Catch::Contains("not UTF-8, or has control characters"));
    CHECK_THAT(complaint(folder / "", FileSystem::kFat),
               Catch::Contains("not UTF-8, or has control characters"));
  }
}

TEST_CASE("folder: names that differ only in case") {
  const TestFolder folder;
  write(folder / "ReadMe");
  write(folder / "README");
  CHECK_THAT(complaint(folder / "", FileSystem::kFat), Catch::Contains("differs only in case"));
  CHECK(complaint(folder / "", FileSystem::kIso) == "none");
}

TEST_CASE("folder: too much, too many, too deep") {
  const TestFolder folder;
  fs::create_directories(folder / "big");
  write(folder / "big/a");
  fs::resize_file(folder / "big/a", kRoom);
  CHECK(complaint(folder / "big", FileSystem::kIso) == "none");
  write(folder / "big/b");
  CHECK_THAT(complaint(folder / "big", FileSystem::kIso),
             Catch::Contains("does not fit: there is room for 1 MiB"));
  std::string deep = folder / "deep";
  for (unsigned i = 0; i <= kDeepest; ++i) {
    deep += "/d";
  }
  fs::create_directories(deep);
  CHECK_THAT(complaint(folder / "deep", FileSystem::kIso), Catch::Contains("nested deeper than 64"));
  fs::create_directories(folder / "many");
  for (std::size_t i = 0; i <= kMostEntries; ++i) {
    // Names of few files: so many inodes take a slow disk half a minute.
    const std::string name = folder / fmt::format("many/{}", i);
    if (i % 30000 == 0) {
      write(name, "");
    } else {
      fs::create_hard_link(folder / fmt::format("many/{}", i / 30000 * 30000), name);
    }
  }
  CHECK_THAT(complaint(folder / "many", FileSystem::kIso), Catch::Contains("one too many: at most 65536"));
}
