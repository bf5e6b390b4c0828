#include "vmm/output_path.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "block/open.hpp"
#include "block/uring/ring.hpp"
#include "vmm/test_folder.hpp"

using namespace whistler;

TEST_CASE("new_and_existing_files_can_be_written", "[output_path]") {
  const TestFolder folder;
  std::ofstream(folder / "old") << "keep";
  REQUIRE(check_output_file(folder / "new").has_value());
  REQUIRE(check_output_file(folder / "old").has_value());
  REQUIRE_FALSE(std::filesystem::exists(folder / "new"));
  REQUIRE(std::filesystem::file_size(folder / "old") == 4);
}

TEST_CASE("folders_and_missing_folders_are_refused", "[output_path]") {
  const TestFolder folder;
  REQUIRE(check_output_file(folder / ".").error().code == ErrorCode::kInvalid);
  REQUIRE(check_output_file(folder / "gone/file").error().code == ErrorCode::kNotFound);
}

TEST_CASE("image_in_use_is_refused", "[output_path]") {
  const TestFolder folder;
  std::ofstream(folder / "disk.raw") << std::string(4096, 'x');
  auto ring = Ring::create();
  REQUIRE(ring.has_value());
  auto image = open_image(**ring, {.path = folder / "disk.raw", .format = "raw"});
  REQUIRE(image.has_value());
  REQUIRE(check_output_file(folder / "disk.raw").error().code == ErrorCode::kBusy);
  image->reset();
  REQUIRE(check_output_file(folder / "disk.raw").has_value());
}

TEST_CASE("same_file_sees_through_links", "[output_path]") {
  const TestFolder folder;
  std::ofstream(folder / "a") << "a";
  std::ofstream(folder / "b") << "b";
  std::filesystem::create_symlink("a", folder / "link");
  REQUIRE(same_file(folder / "a", folder / "link"));
  REQUIRE_FALSE(same_file(folder / "a", folder / "b"));
  REQUIRE_FALSE(same_file(folder / "gone", folder / "gone"));
}
