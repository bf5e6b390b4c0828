#include "block/space_ahead.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/unique_fd.hpp"
#include "block/test_support.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;

/// A new file, and what is asked of it.
struct Filling {
  TemporaryDirectory directory;
  UniqueFd fd{::open(directory.file("f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
  SpaceAhead ahead;

  void write(std::uint64_t offset, std::uint64_t bytes, bool fresh = true) {
    ahead.before_write(fd.get(), file_bytes(), offset, bytes, fresh);
    const auto data = pattern(bytes, static_cast<std::uint32_t>(offset));
    REQUIRE(::pwrite(fd.get(), data.data(), data.size(), static_cast<off_t>(offset)) ==
            static_cast<ssize_t>(bytes));
  }
  [[nodiscard]] bool holds(std::uint64_t offset, std::uint64_t bytes) const {
    Bytes data(bytes);
    return ::pread(fd.get(), data.data(), data.size(), static_cast<off_t>(offset)) ==
               static_cast<ssize_t>(bytes) &&
           data == pattern(bytes, static_cast<std::uint32_t>(offset));
  }
  [[nodiscard]] struct stat status() const {
    struct stat now{};
    REQUIRE(::fstat(fd.get(), &now) == 0);
    return now;
  }
  [[nodiscard]] std::uint64_t file_bytes() const { return static_cast<std::uint64_t>(status().st_size); }
  /// Rounded down to whole MiB: file systems count their own tables, too.
  [[nodiscard]] std::uint64_t allocated_mib() const {
    return static_cast<std::uint64_t>(status().st_blocks) * 512 / kMiB;
  }
};

}  // namespace

TEST_CASE("space_ahead_is_as_long_as_the_run_before_it_up_to_a_step", "[file]") {
  Filling file;
  file.write(0, 128 * 1024);
  CHECK(file.ahead.end() == 0);  // one short write is no run
  file.write(128 * 1024, kMiB - 128 * 1024);
  CHECK(file.ahead.end() == 2 * kMiB);
  file.write(kMiB, kMiB);
  CHECK(file.ahead.end() == 2 * kMiB);
  for (std::uint64_t at = 2; at < 65; ++at) {
    file.write(at * kMiB, kMiB);
    CHECK(file.ahead.end() <= (at + 1) * kMiB + kMostSpaceAhead);
  }
  CHECK(file.ahead.end() > 65 * kMiB);
  CHECK(file.allocated_mib() == file.ahead.end() / kMiB);
  file.ahead.give_back(file.fd.get());
  CHECK(file.allocated_mib() == 65);
}

TEST_CASE("space_ahead_leaves_holes_where_writes_leave_them", "[file]") {
  Filling file;
  REQUIRE(::ftruncate(file.fd.get(), 100 * kMiB) == 0);
  file.write(0, 4 * kMiB);
  REQUIRE(file.ahead.end() == 8 * kMiB);
  SECTION("within the space") { file.write(6 * kMiB, kMiB); }
  SECTION("behind it") { file.write(90 * kMiB, kMiB); }
  file.ahead.give_back(file.fd.get());
  CHECK(file.allocated_mib() == 5);
  CHECK(file.holds(0, 4 * kMiB));
}

TEST_CASE("space_ahead_goes_not_beyond_the_end_of_a_file_that_is_written_inside", "[file]") {
  Filling file;
  REQUIRE(::ftruncate(file.fd.get(), 5 * kMiB) == 0);
  file.write(0, 4 * kMiB);
  CHECK(file.ahead.end() == 5 * kMiB);
  CHECK(file.file_bytes() == 5 * kMiB);
}

TEST_CASE("space_ahead_that_others_wrote_into_is_not_given_back", "[file]") {
  Filling file;
  file.write(0, 4 * kMiB);
  REQUIRE(file.ahead.end() == 8 * kMiB);
  SECTION("a table") {
    file.write(6 * kMiB, 4096, false);
    file.ahead.give_back(file.fd.get());
    CHECK(file.holds(6 * kMiB, 4096));
  }
  SECTION("a table behind it, before the data between them") {
    file.write(12 * kMiB, 4096, false);
    file.write(6 * kMiB, 6 * kMiB);
    file.ahead.give_back(file.fd.get());
    CHECK(file.holds(6 * kMiB, 6 * kMiB));
    CHECK(file.holds(12 * kMiB, 4096));
  }
  SECTION("data that starts before it") {
    file.write(4 * kMiB - 4096, 2 * kMiB + 8192);
    file.ahead.give_back(file.fd.get());
    CHECK(file.holds(4 * kMiB - 4096, 2 * kMiB + 8192));
  }
  CHECK(file.holds(0, 4 * kMiB - 4096));
}

TEST_CASE("space_ahead_is_not_asked_for_beyond_the_size_limit_of_the_process", "[file]") {
  Filling file;
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{6 * kMiB, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  file.write(0, 4 * kMiB);  // the kernel would kill this process for asking
  file.write(4 * kMiB, 2 * kMiB);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK(file.ahead.end() == 0);
  CHECK(file.file_bytes() == 6 * kMiB);
}
