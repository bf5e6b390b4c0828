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
    return answer++;
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
  REQUIRE(
      bus.map({.base = 0x1F1, .length = 7, .max_width = 1, .offset = 1}, command, "ide command").has_value());
  bus.write(0x1F0, 4, 0xAABBCCDD);
  bus.write(0x1F6, 2, 0x01E0);
  REQUIRE(data.calls == std::vector<std::string>{"w0/4=2864434397"});
  REQUIRE(command.calls == std::vector<std::string>{"w6/1=224", "w7/1=1"});
}

TEST_CASE("run_of_accesses_equals_single_ones", "[bus]") {
  for (const unsigned width : {1U, 2U, 4U}) {
    for (const std::uint64_t address : {0x10U, 0x20U, 0x30U}) {  // taken whole, split, unclaimed
      Bus bus("io");
      Recorder wide;
      Recorder narrow;
      REQUIRE(bus.map({.base = 0x10, .length = 8, .max_width = 4, .offset = 3}, wide, "wide").has_value());
      REQUIRE(bus.map({.base = 0x20, .length = 8, .max_width = 1}, narrow, "narrow").has_value());
      std::vector<std::uint8_t> single(12);
      std::vector<std::uint8_t> many(12);

      for (std::size_t i = 0; i < single.size(); i += width) {
        const auto value = bus.read(address, width);
        for (unsigned k = 0; k < width; ++k) {
          single[i + k] = static_cast<std::uint8_t>(value >> (8 * k));
        }
        bus.write(address, width, value);
      }
      const auto wanted_unclaimed = bus.unclaimed();
      const auto reads = bus.usage()[address == 0x10 ? 0 : 1].reads;
      std::vector<std::string> wanted;
      for (const char kind : {'r', 'w'}) {
        for (const auto& call : address == 0x10 ? wide.calls : narrow.calls) {
          if (call[0] == kind) {
            wanted.push_back(call);
          }
        }
      }
      wide = {};
      narrow = {};
      bus.read_many(address, width, many);
      bus.write_many(address, width, many);

      CAPTURE(width, address);
      REQUIRE(many == single);
      REQUIRE((address == 0x10 ? wide.calls : narrow.calls) == wanted);
      REQUIRE(bus.unclaimed() == 2 * wanted_unclaimed);
      REQUIRE(bus.usage()[address == 0x10 ? 0 : 1].reads == 2 * reads);
    }
  }
}

TEST_CASE("unmapped_handler_no_longer_answers", "[bus]") {
  Bus bus("mmio");
  Recorder handler;
  REQUIRE(bus.map({.base = 0xFEB00000, .length = 0x1000}, handler, "bar").has_value());
  bus.unmap(handler);
  REQUIRE(bus.read(0xFEB00000, 4) == 0xFFFFFFFF);
  REQUIRE(handler.calls.empty());
}
