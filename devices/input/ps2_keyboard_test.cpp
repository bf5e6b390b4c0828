#include "devices/input/ps2_keyboard.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

using namespace whistler;

namespace {

using Bytes = std::vector<int>;

constexpr KeyNumber kA = 0x1E;
constexpr KeyNumber kUp = 0xC8;
constexpr KeyNumber kControl = 0x1D;
constexpr KeyNumber kAlt = 0x38;
constexpr KeyNumber kShift = 0x2A;
constexpr KeyNumber kPrintScreen = 0xB7;
constexpr KeyNumber kPause = 0xC6;

struct Fixture {
  Ps2Keyboard keyboard;

  Bytes drain() {
    Bytes bytes;
    while (keyboard.has_byte()) {
      bytes.push_back(keyboard.take_byte());
    }
    return bytes;
  }
  Bytes send(std::initializer_list<std::uint8_t> commands) {
    Bytes bytes;
    for (const auto command : commands) {
      keyboard.receive(command);
      for (const auto byte : drain()) {
        bytes.push_back(byte);
      }
    }
    return bytes;
  }
  Bytes press(KeyNumber key) {
    keyboard.key(key, true);
    return drain();
  }
  Bytes release(KeyNumber key) {
    keyboard.key(key, false);
    return drain();
  }
  StateBytes state() const {
    StateWriter writer;
    keyboard.save(writer);
    return writer.bytes();
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "keyboard_sends_set_2_by_default", "[ps2]") {
  REQUIRE(press(kA) == Bytes{0x1C});
  REQUIRE(release(kA) == Bytes{0xF0, 0x1C});
  REQUIRE(press(kUp) == Bytes{0xE0, 0x75});
  REQUIRE(release(kUp) == Bytes{0xE0, 0xF0, 0x75});
}

TEST_CASE_METHOD(Fixture, "keyboard_sends_set_1_and_3_on_request", "[ps2]") {
  REQUIRE(send({0xF0, 0x01}) == Bytes{0xFA, 0xFA});
  REQUIRE(press(kUp) == Bytes{0xE0, 0x48});
  REQUIRE(release(kUp) == Bytes{0xE0, 0xC8});
  REQUIRE(send({0xF0, 0x00}) == Bytes{0xFA, 0xFA, 0x01});
  send({0xF0, 0x03});
  REQUIRE(press(kUp) == Bytes{0x63});
  REQUIRE(release(kUp) == Bytes{0xF0, 0x63});
  REQUIRE(send({0xF0, 0x09}) == Bytes{0xFA, 0xFE});
}

TEST_CASE_METHOD(Fixture, "keyboard_pause_has_no_break_and_becomes_break_with_control", "[ps2]") {
  REQUIRE(press(kPause) == Bytes{0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77});
  REQUIRE(release(kPause).empty());
  press(kControl);
  REQUIRE(press(kPause) == Bytes{0xE0, 0x7E, 0xE0, 0xF0, 0x7E});
}

TEST_CASE_METHOD(Fixture, "keyboard_print_screen_follows_the_modifiers", "[ps2]") {
  REQUIRE(press(kPrintScreen) == Bytes{0xE0, 0x12, 0xE0, 0x7C});
  REQUIRE(release(kPrintScreen) == Bytes{0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12});
  press(kShift);
  REQUIRE(press(kPrintScreen) == Bytes{0xE0, 0x7C});
  REQUIRE(release(kPrintScreen) == Bytes{0xE0, 0xF0, 0x7C});
  release(kShift);
  press(kAlt);
  REQUIRE(press(kPrintScreen) == Bytes{0x84});
  release(kAlt);
  REQUIRE(release(kPrintScreen) == Bytes{0xF0, 0x84});  // as it went down
}

TEST_CASE_METHOD(Fixture, "keyboard_repeats_are_sent_but_no_release_of_a_key_that_is_up", "[ps2]") {
  press(kA);
  REQUIRE(press(kA) == Bytes{0x1C});
  release(kA);
  REQUIRE(release(kA).empty());
}

TEST_CASE_METHOD(Fixture, "keyboard_answers_its_commands", "[ps2]") {
  REQUIRE(send({0xFF}) == Bytes{0xFA, 0xAA});
  REQUIRE(send({0xEE}) == Bytes{0xEE});
  REQUIRE(send({0xF2}) == Bytes{0xFA, 0xAB, 0x83});
  REQUIRE(send({0xF3, 0x20}) == Bytes{0xFA, 0xFA});
  REQUIRE(send({0xFA}) == Bytes{0xFA});
  REQUIRE(send({0xFC, 0xF9}) == Bytes{0xFA, 0xFA});
  REQUIRE(send({0x12}) == Bytes{0xFE});
}

TEST_CASE_METHOD(Fixture, "keyboard_leds_are_set_and_a_command_ends_the_wait_for_them", "[ps2]") {
  REQUIRE(send({0xED, 0x05}) == Bytes{0xFA, 0xFA});
  REQUIRE(keyboard.leds() == 5);
  REQUIRE(send({0xED, 0xF4}) == Bytes{0xFA, 0xFA});
  REQUIRE(keyboard.leds() == 5);
  send({0xFF});
  REQUIRE(keyboard.leds() == 0);
}

TEST_CASE_METHOD(Fixture, "keyboard_resends_its_last_byte", "[ps2]") {
  press(kA);
  REQUIRE(send({0xFE}) == Bytes{0x1C});
}

TEST_CASE_METHOD(Fixture, "keyboard_disabled_sends_nothing", "[ps2]") {
  send({0xF5});
  REQUIRE(press(kA).empty());
  send({0xF4});
  REQUIRE(release(kA) == Bytes{0xF0, 0x1C});
}

TEST_CASE_METHOD(Fixture, "keyboard_answers_go_before_strokes", "[ps2]") {
  keyboard.key(kA, true);
  keyboard.receive(0xED);
  REQUIRE(keyboard.keys_pending() == 1);
  REQUIRE(drain() == Bytes{0xFA, 0x1C});
  REQUIRE(keyboard.keys_pending() == 0);
}

TEST_CASE_METHOD(Fixture, "keyboard_overrun_is_told_once_and_whole_keys_are_kept", "[ps2]") {
  for (int i = 0; i < 100; ++i) {
    keyboard.key(kUp, true);
  }
  const auto bytes = drain();
  REQUIRE(bytes.size() == 63);  // 31 keys of two bytes and the overrun code
  REQUIRE(bytes[61] == 0x75);
  REQUIRE(bytes[62] == 0x00);
  REQUIRE(press(kA) == Bytes{0x1C});
}

TEST_CASE_METHOD(Fixture, "keyboard_state_round_trips_and_reset_is_fresh", "[ps2]") {
  const auto fresh = state();
  send({0xF0, 0x01, 0xED, 0x07});
  keyboard.key(kUp, true);
  const auto saved = state();
  keyboard.reset();
  REQUIRE(state() == fresh);
  REQUIRE(keyboard.load(StateReader(saved)).has_value());
  REQUIRE(state() == saved);
  REQUIRE(drain() == Bytes{0xE0, 0x48});
}

TEST_CASE_METHOD(Fixture, "keyboard_damaged_state_is_refused", "[ps2]") {
  auto bytes = state();
  const std::string name = "scan_set";
  const auto at = std::search(bytes.begin(), bytes.end(), name.begin(), name.end());
  REQUIRE(at != bytes.end());
  *(at + static_cast<std::ptrdiff_t>(name.size()) + 4) = 4;
  REQUIRE(keyboard.load(StateReader(bytes)).error().code == ErrorCode::kCorrupt);
}

TEST_CASE_METHOD(Fixture, "keyboard_survives_random_bytes_and_keys", "[ps2]") {
  std::mt19937 engine(101);
  const auto random = [&] { return static_cast<unsigned>(engine()); };
  for (int i = 0; i < 20000; ++i) {
    keyboard.receive(static_cast<std::uint8_t>(random()));
    keyboard.key(static_cast<KeyNumber>(random()), random() % 2 == 0);
    REQUIRE(keyboard.keys_pending() <= 64);
    if (random() % 3 == 0) {
      static_cast<void>(keyboard.take_byte());
    }
  }
}
