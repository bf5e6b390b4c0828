#include "vmm/unix_socket.hpp"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "vmm/test_folder.hpp"

using namespace whistler;

TEST_CASE("listener_is_for_this_user_and_answers", "[unix_socket]") {
  const TestFolder folder;
  const auto listener = listen_unix(folder / "s");
  REQUIRE(listener.has_value());
  struct stat info{};
  REQUIRE(::stat((folder / "s").c_str(), &info) == 0);
  REQUIRE((info.st_mode & 0777) == 0600);
  REQUIRE(connect_unix(folder / "s").has_value());
}

TEST_CASE("stale_socket_is_replaced_and_live_one_is_not", "[unix_socket]") {
  const TestFolder folder;
  static_cast<void>(listen_unix(folder / "s"));  // closed at once: its name stays
  const auto listener = listen_unix(folder / "s");
  REQUIRE(listener.has_value());
  REQUIRE(listen_unix(folder / "s").error().code == ErrorCode::kBusy);
}

TEST_CASE("listener_with_a_full_queue_is_alive", "[unix_socket]") {
  const TestFolder folder;
  const auto listener = listen_unix(folder / "s");
  std::vector<UniqueFd> waiting;
  for (int i = 0; i < 9; ++i) {
    waiting.push_back(std::move(*connect_unix(folder / "s")));
  }
  REQUIRE(listen_unix(folder / "s").error().code == ErrorCode::kBusy);
}

TEST_CASE("path_that_cannot_be_a_socket_is_refused_and_kept", "[unix_socket]") {
  const TestFolder folder;
  std::ofstream(folder / "file") << "keep";
  REQUIRE(listen_unix(folder / "file").error().code == ErrorCode::kExists);
  REQUIRE(std::filesystem::file_size(folder / "file") == 4);
  REQUIRE(listen_unix("").error().code == ErrorCode::kInvalid);
  REQUIRE(listen_unix(folder / std::string(200, 'x')).error().code == ErrorCode::kInvalid);
  REQUIRE(listen_unix(folder / "gone/s").error().code == ErrorCode::kNotFound);
  REQUIRE_FALSE(connect_unix(folder / "nobody").has_value());
}

TEST_CASE("check_creates_nothing", "[unix_socket]") {
  const TestFolder folder;
  REQUIRE(check_unix_path(folder / "s").has_value());
  REQUIRE_FALSE(std::filesystem::exists(folder / "s"));
}
