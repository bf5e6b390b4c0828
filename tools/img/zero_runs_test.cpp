#include "tools/img/zero_runs.hpp"

#include <catch2/catch.hpp>
#include <vector>

using namespace whistler::tools;

namespace {

/// A buffer of 4 KiB units: 'x' has data, '.' has none.
std::vector<std::uint8_t> units(const std::string& pattern) {
  std::vector<std::uint8_t> bytes(pattern.size() * 4096);
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    bytes[i * 4096 + 4095] = pattern[i] == 'x' ? 1 : 0;
  }
  return bytes;
}

Stretch first(const std::string& pattern, std::size_t min_zero, std::size_t alignment = 4096) {
  return first_stretch(units(pattern), 0, min_zero, alignment);
}

}  // namespace

TEST_CASE("zero_runs_leading_zeroes_end_at_the_first_data", "[convert]") {
  const auto stretch = first("..xx", 4096);
  CHECK_FALSE(stretch.data);
  CHECK(stretch.bytes == 8192);
}

TEST_CASE("zero_runs_shorter_than_the_least_run_belong_to_the_data", "[convert]") {
  const auto stretch = first("x.x..x", 8192);
  CHECK(stretch.data);
  CHECK(stretch.bytes == 3 * 4096);
}

TEST_CASE("zero_runs_at_the_end_of_the_buffer_are_cut_off", "[convert]") {
  const auto stretch = first("xx.", 8192);
  CHECK(stretch.data);
  CHECK(stretch.bytes == 2 * 4096);
}

TEST_CASE("zero_runs_all_zero_buffer_is_one_stretch", "[convert]") {
  const auto stretch = first("....", 4096);
  CHECK_FALSE(stretch.data);
  CHECK(stretch.bytes == 4 * 4096);
}

TEST_CASE("zero_runs_count_in_whole_units_of_the_alignment", "[convert]") {
  const auto stretch = first(".x..", 4096, 8192);
  CHECK(stretch.data);
  CHECK(stretch.bytes == 8192);
}

TEST_CASE("zero_runs_without_a_least_run_everything_is_data", "[convert]") {
  const auto stretch = first("....", 0);
  CHECK(stretch.data);
  CHECK(stretch.bytes == 4 * 4096);
}
