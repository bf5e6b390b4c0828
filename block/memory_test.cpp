#include "block/memory.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <optional>

using namespace whistler;

namespace {

/// The result of a task that never waits.
template <typename T>
T inline_result(Task<T> task) {
  std::optional<T> result;
  spawn(std::move(task), [&](T value) { result = std::move(value); });
  REQUIRE(result.has_value());
  return *result;
}

}  // namespace

TEST_CASE("memory_device_reads_back_what_was_written", "[memory]") {
  MemoryBlockDevice device(4096);
  std::array<char, 4> out = {'a', 'b', 'c', 'd'};
  std::array<char, 4> in{};
  const iovec write_to{out.data(), 4};
  const iovec read_to{in.data(), 4};
  REQUIRE(inline_result(device.writev(100, {&write_to, 1})).has_value());
  REQUIRE(inline_result(device.readv(100, {&read_to, 1})).has_value());
  REQUIRE(in == out);
}

TEST_CASE("memory_device_refuses_what_lies_beyond_its_end", "[memory]") {
  MemoryBlockDevice device(4096);
  std::array<char, 4> data{};
  const iovec vec{data.data(), 4};
  REQUIRE(inline_result(device.writev(4094, {&vec, 1})).error().code == ErrorCode::kInvalid);
  REQUIRE(inline_result(device.writev(~0ULL, {&vec, 1})).error().code == ErrorCode::kInvalid);
}
