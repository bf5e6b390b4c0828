#include "base/state.hpp"

#include <catch2/catch.hpp>

using namespace whistler;

namespace {

enum class Mode : std::uint8_t { kIdle, kBusy };

struct Inner {
  std::uint16_t count = 0;
  bool operator==(const Inner&) const = default;
  static void fields(auto& self, auto&& visit) { visit("count", self.count); }
};

struct Sample {
  std::uint32_t number = 0;
  bool flag = false;
  Mode mode = Mode::kIdle;
  std::array<std::uint16_t, 3> words{};
  std::vector<std::uint8_t> queue;
  std::array<Inner, 2> inner{};
  std::string name;
  bool operator==(const Sample&) const = default;
  static void fields(auto& self, auto&& visit) {
    visit("number", self.number);
    visit("flag", self.flag);
    visit("mode", self.mode);
    visit("words", self.words);
    visit("queue", self.queue);
    visit("inner", self.inner);
    visit("name", self.name);
  }
};

Sample filled() { return {0xDEADBEEF, true, Mode::kBusy, {1, 2, 3}, {9, 8}, {Inner{7}, Inner{6}}, "ide0"}; }

}  // namespace

TEST_CASE("saved_state_loads_equal", "[state]") {
  StateWriter writer;
  writer.put(filled());
  Sample loaded;
  REQUIRE(StateReader(writer.bytes()).get(loaded).has_value());
  REQUIRE(loaded == filled());
}

TEST_CASE("every_truncation_is_an_error_that_leaves_the_target_alone", "[state]") {
  StateWriter writer;
  writer.put(filled());
  for (std::size_t length = 0; length < writer.bytes().size(); ++length) {
    Sample loaded;
    REQUIRE_FALSE(StateReader(std::span(writer.bytes()).first(length)).get(loaded).has_value());
    REQUIRE(loaded == Sample{});
  }
}

TEST_CASE("dump_names_nested_fields", "[state]") {
  REQUIRE(dump_state(filled()).find("inner[1].count = 6\n") != std::string::npos);
}
