#include "devices/input/ps2_mouse.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <climits>
#include <random>
#include <vector>

#include "devices/input/ps2_input.hpp"

using namespace whistler;

namespace {

using Bytes = std::vector<int>;

struct Fixture {
  Ps2Keyboard keyboard;
  Ps2Mouse mouse;
  Ps2Input input{keyboard, mouse};

  Bytes drain() {
    Bytes bytes;
    while (mouse.has_byte()) {
      bytes.push_back(mouse.take_byte());
    }
    return bytes;
  }
  Bytes send(std::initializer_list<std::uint8_t> commands) {
    Bytes bytes;
    for (const auto command : commands) {
      mouse.receive(command);
      for (const auto byte : drain()) {
        bytes.push_back(byte);
      }
    }
    return bytes;
  }
  StateBytes state() const {
    StateWriter writer;
    mouse.save(writer);
    return writer.bytes();
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "mouse_answers_reset_and_id", "[ps2]") {
  REQUIRE(send({0xFF}) == Bytes{0xFA, 0xAA, 0x00});
  REQUIRE(send({0xF2}) == Bytes{0xFA, 0x00});
  REQUIRE(send({0x01}) == Bytes{0xFE});
}

TEST_CASE_METHOD(Fixture, "mouse_sends_nothing_until_enabled", "[ps2]") {
  mouse.move(5, 5, 0, 0);
  REQUIRE(drain().empty());
  REQUIRE(send({0xF4}) == Bytes{0xFA});
  mouse.move(5, 3, 0, kButtonLeft);
  REQUIRE(drain() == Bytes{0x29, 0x05, 0xFD});  // y goes up
}

TEST_CASE_METHOD(Fixture, "mouse_knocks_turn_on_wheel_and_five_buttons", "[ps2]") {
  send({0xF3, 200, 0xF3, 100, 0xF3, 80});
  REQUIRE(send({0xF2}) == Bytes{0xFA, 0x03});
  send({0xF4});
  mouse.move(0, 0, 1, 0);
  REQUIRE(drain() == Bytes{0x08, 0, 0, 0xFF});
  send({0xF3, 200, 0xF3, 200, 0xF3, 80});
  REQUIRE(send({0xF2}) == Bytes{0xFA, 0x04});
  mouse.move(0, 0, -1, Ps2Mouse::kButton4);
  REQUIRE(drain() == Bytes{0x08, 0, 0, 0x11});
  REQUIRE(send({0xFF, 0xF2}) == Bytes{0xFA, 0xAA, 0x00, 0xFA, 0x00});
}

TEST_CASE_METHOD(Fixture, "mouse_broken_knock_changes_nothing", "[ps2]") {
  send({0xF3, 200, 0xF3, 60, 0xF3, 100, 0xF3, 80});
  REQUIRE(send({0xF2}) == Bytes{0xFA, 0x00});
}

TEST_CASE_METHOD(Fixture, "mouse_status_shows_modes_buttons_resolution_and_rate", "[ps2]") {
  send({0xE8, 3, 0xF3, 40, 0xE7, 0xF4});
  mouse.move(0, 0, 0, kButtonRight | kButtonMiddle);
  REQUIRE(send({0xE9}) == Bytes{0xFA, 0x33, 3, 40});
  send({0xF6});
  REQUIRE(send({0xE9}) == Bytes{0xFA, 0x03, 2, 100});
}

TEST_CASE_METHOD(Fixture, "mouse_remote_mode_answers_only_when_asked", "[ps2]") {
  send({0xF0, 0xF4});
  mouse.move(7, -2, 0, 0);
  REQUIRE(drain().empty());
  REQUIRE(send({0xEB}) == Bytes{0xFA, 0x08, 7, 2});
  REQUIRE(send({0xEB}) == Bytes{0xFA, 0x08, 0, 0});
  send({0xEA});
  mouse.move(1, 0, 0, 0);
  REQUIRE(drain() == Bytes{0x08, 1, 0});
}

TEST_CASE_METHOD(Fixture, "mouse_wrap_mode_echoes_until_told_otherwise", "[ps2]") {
  REQUIRE(send({0xEE, 0x12, 0xF2}) == Bytes{0xFA, 0x12, 0xF2});
  REQUIRE(send({0xEC, 0xF2}) == Bytes{0xFA, 0xFA, 0x00});
}

TEST_CASE_METHOD(Fixture, "mouse_moves_merge_while_a_packet_waits", "[ps2]") {
  send({0xF4});
  for (int i = 0; i < 100; ++i) {
    mouse.move(1, 0, 0, 0);
  }
  REQUIRE(drain() == Bytes{0x08, 1, 0, 0x08, 99, 0});
}

TEST_CASE_METHOD(Fixture, "mouse_click_is_not_merged_away", "[ps2]") {
  send({0xF4});
  mouse.move(1, 0, 0, 0);
  mouse.move(0, 0, 0, kButtonLeft);
  mouse.move(0, 0, 0, 0);
  REQUIRE(drain() == Bytes{0x08, 1, 0, 0x09, 0, 0, 0x08, 0, 0});
}

TEST_CASE_METHOD(Fixture, "mouse_large_motion_is_split_without_loss", "[ps2]") {
  send({0xF4});
  mouse.move(-600, 0, 0, 0);
  REQUIRE(drain() == Bytes{0x18, 0x01, 0, 0x18, 0x01, 0, 0x18, 0xA6, 0});  // -255, -255, -90
}

TEST_CASE_METHOD(Fixture, "mouse_lost_motion_sets_the_overflow_bits", "[ps2]") {
  send({0xF4});
  mouse.move(INT_MAX, INT_MIN, INT_MIN, 0);
  mouse.move(INT_MAX, INT_MIN, INT_MAX, 0);
  REQUIRE(mouse.take_byte() == 0xC8);
  REQUIRE(mouse.take_byte() == 0xFF);
  REQUIRE(mouse.take_byte() == 0xFF);
}

TEST_CASE_METHOD(Fixture, "mouse_scaling_two_to_one_doubles_large_steps_only", "[ps2]") {
  send({0xE7, 0xF4});
  mouse.move(1, 0, 0, 0);
  REQUIRE(drain() == Bytes{0x08, 1, 0});
  mouse.move(20, 3, 0, 0);
  REQUIRE(drain() == Bytes{0x28, 40, 0xFD});
}

TEST_CASE_METHOD(Fixture, "mouse_command_breaks_off_a_packet", "[ps2]") {
  send({0xF4});
  mouse.move(1, 1, 0, 0);
  static_cast<void>(mouse.take_byte());
  REQUIRE(send({0xF5}) == Bytes{0xFA});
}

TEST_CASE_METHOD(Fixture, "input_places_become_motion_in_pixels", "[ps2]") {
  send({0xF4});
  input.set_screen_size(1024, 768);
  input.pointer_place(16384, 16384, 0, 0);
  REQUIRE(drain().empty());
  input.pointer_place(16384 + 32 * 10, 16384, 0, 0);
  REQUIRE(drain() == Bytes{0x08, 10, 0});
  input.pointer_place(UINT_MAX, UINT_MAX, 0, kButtonLeft);
  REQUIRE(drain()[0] == 0x29);
  REQUIRE_FALSE(input.absolute());
}

TEST_CASE_METHOD(Fixture, "mouse_state_round_trips_and_reset_is_fresh", "[ps2]") {
  const auto fresh = state();
  send({0xF3, 200, 0xF3, 100, 0xF3, 80, 0xF4});
  mouse.move(300, 4, 1, 1);
  const auto saved = state();
  mouse.reset();
  REQUIRE(state() == fresh);
  REQUIRE(mouse.load(StateReader(saved)).has_value());
  REQUIRE(state() == saved);
  REQUIRE(drain().size() == 8);
}

TEST_CASE_METHOD(Fixture, "mouse_damaged_state_is_refused", "[ps2]") {
  auto bytes = state();
  const std::string name = "device_id";
  const auto at = std::search(bytes.begin(), bytes.end(), name.begin(), name.end());
  REQUIRE(at != bytes.end());
  *(at + static_cast<std::ptrdiff_t>(name.size()) + 4) = 9;
  REQUIRE(mouse.load(StateReader(bytes)).error().code == ErrorCode::kCorrupt);
}

TEST_CASE_METHOD(Fixture, "mouse_survives_random_bytes_and_moves", "[ps2]") {
  std::mt19937 engine(202);
  const auto random = [&] { return static_cast<unsigned>(engine()); };
  for (int i = 0; i < 20000; ++i) {
    mouse.receive(static_cast<std::uint8_t>(random()));
    mouse.move(static_cast<int>(random()), static_cast<int>(random()), static_cast<int>(random()), random());
    input.pointer_place(random(), random(), 0, random());
    const auto bytes = random() % 6;
    for (unsigned n = 0; n < bytes; ++n) {
      static_cast<void>(mouse.take_byte());
    }
  }
  REQUIRE(send({0xEC, 0xFF, 0xFF}).back() == 0x00);
}
