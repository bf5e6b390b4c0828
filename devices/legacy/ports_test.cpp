// The one-byte ports: 0x61, 0x92, debug console and debug exit.
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "devices/legacy/debug_console.hpp"
#include "devices/legacy/debug_exit.hpp"
#include "devices/legacy/port61.hpp"
#include "devices/legacy/port92.hpp"

using namespace whistler;

namespace {

struct Collector final : CharBackend {
  std::string text;
  void send(std::uint8_t byte) override { text.push_back(static_cast<char>(byte)); }
};

template <typename Chip>
StateBytes state_of(const Chip& chip) {
  StateWriter writer;
  chip.save(writer);
  return writer.bytes();
}

}  // namespace

TEST_CASE("port92_fast_reset_wants_a_rising_bit", "[port92]") {
  int resets = 0;
  Port92 port([&] { ++resets; });
  port.write(0, 1, 0x03);
  port.write(0, 1, 0x03);
  REQUIRE(resets == 1);
  port.write(0, 1, 0x02);
  port.write(0, 1, 0x03);
  REQUIRE(resets == 2);
}

TEST_CASE("port92_a20_is_open_at_reset_and_reports_changes", "[port92]") {
  std::vector<bool> heard;
  Port92 port({}, [&](bool enabled) { heard.push_back(enabled); });
  REQUIRE(port.read(0, 1) == 0x02);
  port.write(0, 1, 0x00);
  port.write(0, 1, 0x08);
  port.set_a20(true);
  REQUIRE(port.read(0, 1) == 0x0A);
  REQUIRE(heard == std::vector<bool>{false, true});
}

TEST_CASE("port92_state_round_trips_and_reset_is_fresh", "[port92]") {
  Port92 port;
  const auto fresh = state_of(port);
  port.write(0, 1, 0xC8);
  const auto saved = state_of(port);
  port.reset();
  REQUIRE(state_of(port) == fresh);
  REQUIRE(port.load(StateReader(saved)).has_value());
  REQUIRE(state_of(port) == saved);
  REQUIRE_FALSE(port.a20());
}

TEST_CASE("port61_refresh_bit_toggles_every_15_us", "[port61]") {
  ManualClock clock;
  Port61 port(clock);
  int changes = 0;
  auto last = port.read(0, 1) & 0x10;
  for (int us = 1; us <= 1508; ++us) {
    clock.advance(1000);
    const auto now = port.read(0, 1) & 0x10;
    changes += now != last ? 1 : 0;
    last = now;
  }
  REQUIRE(changes >= 98);
  REQUIRE(changes <= 101);
}

TEST_CASE("port61_reaches_timer_2", "[port61]") {
  ManualClock clock;
  bool gate = false;
  bool output = true;
  Port61 port(clock, {.output = [&] { return output; }, .set_gate = [&](bool level) { gate = level; }});
  port.write(0, 1, 0xF3);
  REQUIRE(gate);
  REQUIRE(port.read(0, 1) == 0x23);
  output = false;
  REQUIRE(port.read(0, 1) == 0x03);
  port.reset();
  REQUIRE_FALSE(gate);
}

TEST_CASE("port61_state_round_trips_and_reset_is_fresh", "[port61]") {
  ManualClock clock;
  Port61 port(clock);
  const auto fresh = state_of(port);
  port.write(0, 1, 0x0F);
  const auto saved = state_of(port);
  port.reset();
  REQUIRE(state_of(port) == fresh);
  REQUIRE(port.load(StateReader(saved)).has_value());
  REQUIRE(state_of(port) == saved);
}

TEST_CASE("debug_console_sends_bytes_and_shows_its_mark", "[debug]") {
  Collector collector;
  DebugConsole port(collector);
  port.write(0, 1, 'H');
  port.write(0, 1, 'i');
  REQUIRE(collector.text == "Hi");
  REQUIRE(port.read(0, 1) == 0xE9);
}

TEST_CASE("debug_exit_status_is_odd", "[debug]") {
  std::vector<int> statuses;
  DebugExit port([&](int status) { statuses.push_back(status); });
  port.write(0, 1, 0);
  port.write(0, 4, 0x10);
  port.write(1, 4, 0xFFFFFFFF);
  REQUIRE(statuses == std::vector<int>{1, 0x21, -1});
  REQUIRE(port.read(0, 4) == 0);
}

TEST_CASE("ports_survive_random_accesses", "[ports]") {
  ManualClock clock;
  Port61 port61(clock);
  Port92 port92;
  std::mt19937 engine(61);
  const auto random = [&] { return static_cast<unsigned>(engine()); };
  for (int i = 0; i < 5000; ++i) {
    clock.advance(static_cast<Nanoseconds>(random()));
    port61.write(0, 1, random() & 0xFF);
    port92.write(0, 1, random() & 0xFF);
    REQUIRE(port61.read(0, 1) <= 0x3F);
    REQUIRE(port92.read(0, 1) <= 0xFF);
  }
}
