#include "devices/core/bus.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace whistler;

namespace {

struct Recorder final : IoHandler {
  std::vector<std::string> calls;
  std::uint64_t answer = 0;
  std::uint64_t read(std::uint64_t offset, unsigned width) override {
    calls.push_back("r" + std::to_string(offset) + "/" + std::to_string(width));
    return answer;
  }
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override {
    calls.push_back("w" + std::to_string(offset) + "/" + std::to_string(width) + "=" + std::to_string(value));
  }
};

}  // namespace

TEST_CASE("unclaimed_read_gives_all_ones_and_is_counted", "[bus]") {
  Bus bus("io");
  REQUIRE(bus.read(0x80, 2) == 0xFFFF);
  REQUIRE(bus.unclaimed() == 2);
}

TEST_CASE("overlap_names_both_owners", "[bus]") {
  Bus bus("io");
  Recorder a;
  REQUIRE(bus.map({.base = 0x60, .length = 5}, a, "i8042").has_value());
  const auto second = bus.map({.base = 0x64, .length = 1}, a, "port64");
  REQUIRE(second.error().code == ErrorCode::kExists);
  REQUIRE(second.error().message.find("i8042") != std::string::npos);
}

TEST_CASE("wide_access_is_split_to_the_declared_width", "[bus]") {
  Bus bus("io");
  Recorder handler;
  REQUIRE(bus.map({.base = 0x70, .length = 2, .max_width = 1}, handler, "rtc").has_value());
  bus.write(0x70, 2, 0x1234);
  REQUIRE(handler.calls == std::vector<std::string>{"w0/1=52", "w1/1=18"});
}

TEST_CASE("access_that_starts_in_a_wide_range_goes_to_it_whole", "[bus]") {
  Bus bus("io");
  Recorder data;
  Recorder command;
  REQUIRE(bus.map({.base = 0x1F0, .length = 1, .max_width = 4}, data, "ide data").has_value());
  REQUIRE(bus.map({.base = 0x1F1, .length = 7, .max_width = 1, .offset = 1}, command, "ide command").has_value());
  bus.write(0x1F0, 4, 0xAABBCCDD);
  bus.write(0x1F6, 2, 0x01E0);
  REQUIRE(data.calls == std::vector<std::string>{"w0/4=2864434397"});
  REQUIRE(command.calls == std::vector<std::string>{"w6/1=224", "w7/1=1"});
}

TEST_CASE("unmapped_handler_no_longer_answers", "[bus]") {
  Bus bus("mmio");
  Recorder handler;
  REQUIRE(bus.map({.base = 0xFEB00000, .length = 0x1000}, handler, "bar").has_value());
  bus.unmap(handler);
  REQUIRE(bus.read(0xFEB00000, 4) == 0xFFFFFFFF);
  REQUIRE(handler.calls.empty());
}
