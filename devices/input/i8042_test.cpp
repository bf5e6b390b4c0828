#include "devices/input/i8042.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "devices/input/ps2_keyboard.hpp"
#include "devices/input/ps2_mouse.hpp"

using namespace whistler;

namespace {

using Bytes = std::vector<int>;

struct System final : SystemControl {
  bool gate = true;
  int resets = 0;
  void set_a20(bool enabled) override { gate = enabled; }
  bool a20() const override { return gate; }
  void request_reset() override { ++resets; }
};

constexpr KeyNumber kA = 0x1E;
constexpr KeyNumber kUp = 0xC8;

struct Fixture {
  IrqRecorder irqs;
  System system;
  Ps2Keyboard keyboard;
  Ps2Mouse mouse;
  I8042 controller{IrqLine(irqs, 1), IrqLine(irqs, 12), keyboard, mouse, system};

  unsigned status() { return static_cast<unsigned>(controller.read(4, 1)); }
  int data() { return static_cast<int>(controller.read(0, 1)); }
  void command(std::uint8_t byte) { controller.write(4, 1, byte); }
  void put(std::uint8_t byte) { controller.write(0, 1, byte); }
  void command(std::uint8_t byte, std::uint8_t argument) {
    command(byte);
    put(argument);
  }
  Bytes drain() {
    Bytes bytes;
    while ((status() & 1) != 0) {
      bytes.push_back(data());
    }
    return bytes;
  }
  StateBytes state() const {
    StateWriter writer;
    controller.save(writer);
    return writer.bytes();
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "i8042_fresh_is_empty_and_unlocked", "[i8042]") {
  REQUIRE(status() == 0x18);
  command(0x20);
  REQUIRE(data() == 0x03);
}

TEST_CASE_METHOD(Fixture, "i8042_tests_pass", "[i8042]") {
  command(0xAA);
  REQUIRE(status() == 0x1D);
  REQUIRE(data() == 0x55);
  command(0xAB);
  REQUIRE(drain() == Bytes{0x00});
  command(0xA9);
  REQUIRE(drain() == Bytes{0x00});
  command(0xA4);
  REQUIRE(drain() == Bytes{0xF1});
  command(0xC0);
  REQUIRE(drain() == Bytes{0x80});
  command(0xE0);
  REQUIRE(drain() == Bytes{0x00});
}

TEST_CASE_METHOD(Fixture, "i8042_ram_is_written_and_read", "[i8042]") {
  command(0x60, 0x47);
  command(0x7F, 0xA5);
  command(0x20);
  REQUIRE(data() == 0x47);
  command(0x3F);
  REQUIRE(data() == 0xA5);
  REQUIRE((status() & 0x04) != 0);
}

TEST_CASE_METHOD(Fixture, "i8042_command_bit_tells_the_last_write", "[i8042]") {
  command(0x60);
  REQUIRE((status() & 0x08) != 0);
  put(0x03);
  REQUIRE((status() & 0x08) == 0);
}

TEST_CASE_METHOD(Fixture, "i8042_keyboard_byte_fills_the_buffer_and_interrupts", "[i8042]") {
  keyboard.key(kUp, true);
  REQUIRE((status() & 0x21) == 0x01);
  REQUIRE(irqs.level(1));
  REQUIRE(data() == 0xE0);
  REQUIRE(irqs.level(1));  // the next byte
  REQUIRE(irqs.raised(1) == 2);
  REQUIRE(data() == 0x75);
  REQUIRE_FALSE(irqs.level(1));
  REQUIRE((status() & 0x01) == 0);
  REQUIRE(data() == 0x75);  // again
}

TEST_CASE_METHOD(Fixture, "i8042_interrupt_enables_gate_the_lines", "[i8042]") {
  command(0x60, 0x00);
  keyboard.key(kA, true);
  REQUIRE((status() & 1) == 1);
  REQUIRE_FALSE(irqs.level(1));
  command(0x60, 0x01);
  REQUIRE(irqs.level(1));
}

TEST_CASE_METHOD(Fixture, "i8042_translates_set_2_to_set_1", "[i8042]") {
  command(0x60, 0x41);
  keyboard.key(kUp, true);
  keyboard.key(kUp, false);
  REQUIRE(drain() == Bytes{0xE0, 0x48, 0xE0, 0xC8});
  keyboard.key(0xC6, true);
  REQUIRE(drain() == Bytes{0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5});
  put(0xF2);
  REQUIRE(drain() == Bytes{0xFA, 0xAB, 0x41});
}

TEST_CASE_METHOD(Fixture, "i8042_disabled_keyboard_keeps_its_keys", "[i8042]") {
  command(0xAD);
  keyboard.key(kA, true);
  REQUIRE((status() & 1) == 0);
  REQUIRE(keyboard.keys_pending() == 1);
  command(0x20);
  REQUIRE(data() == 0x13);
  command(0xAE);
  REQUIRE(drain() == Bytes{0x1C});
}

TEST_CASE_METHOD(Fixture, "i8042_write_to_keyboard_turns_it_on_and_answers_first", "[i8042]") {
  command(0xAD);
  keyboard.key(kA, true);
  put(0xEE);
  REQUIRE(drain() == Bytes{0xEE, 0x1C});
}

TEST_CASE_METHOD(Fixture, "i8042_mouse_bytes_are_marked_and_use_irq_12", "[i8042]") {
  command(0xD4, 0xF2);
  REQUIRE((status() & 0x21) == 0x21);
  REQUIRE(irqs.level(12));
  REQUIRE_FALSE(irqs.level(1));
  REQUIRE(drain() == Bytes{0xFA, 0x00});
  REQUIRE(irqs.raised(12) == 2);
}

TEST_CASE_METHOD(Fixture, "i8042_disabled_mouse_waits_and_d4_turns_it_on", "[i8042]") {
  command(0xD4, 0xF4);
  drain();
  command(0xA7);
  mouse.move(1, 0, 0, 0);
  REQUIRE((status() & 1) == 0);
  command(0xA8);
  REQUIRE(drain() == Bytes{0x08, 1, 0});
  command(0xA7);
  command(0xD4, 0xF2);
  REQUIRE(drain() == Bytes{0xFA, 0x00});
}

TEST_CASE_METHOD(Fixture, "i8042_loops_bytes_back_as_keyboard_and_mouse", "[i8042]") {
  command(0xD2, 0x5A);
  REQUIRE((status() & 0x21) == 0x01);
  REQUIRE(irqs.level(1));
  REQUIRE(data() == 0x5A);
  command(0xD3, 0xA5);
  REQUIRE((status() & 0x21) == 0x21);
  REQUIRE(irqs.level(12));
  REQUIRE(data() == 0xA5);
}

TEST_CASE_METHOD(Fixture, "i8042_answer_waits_for_the_byte_in_the_buffer", "[i8042]") {
  keyboard.key(kUp, true);
  command(0x20);
  REQUIRE(drain() == Bytes{0xE0, 0x03, 0x75});
}

TEST_CASE_METHOD(Fixture, "i8042_output_port_moves_a20_and_resets", "[i8042]") {
  command(0xD0);
  REQUIRE(drain() == Bytes{0x03});
  command(0xD1, 0xDD);
  REQUIRE_FALSE(system.gate);
  command(0xD0);
  REQUIRE(drain() == Bytes{0xCD});
  command(0xD1, 0xDF);
  REQUIRE(system.gate);
  command(0xDD);
  REQUIRE_FALSE(system.gate);
  command(0xDF);
  REQUIRE(system.gate);
  REQUIRE(system.resets == 0);
  command(0xD1, 0x02);
  REQUIRE(system.resets == 1);
}

TEST_CASE_METHOD(Fixture, "i8042_pulse_resets_only_with_bit_0_low", "[i8042]") {
  command(0xFF);
  command(0xFD);
  REQUIRE(system.resets == 0);
  command(0xFE);
  command(0xF0);
  REQUIRE(system.resets == 2);
}

TEST_CASE_METHOD(Fixture, "i8042_new_command_drops_one_that_waits_for_its_byte", "[i8042]") {
  command(0xD1);
  command(0xAE);
  put(0xEE);
  REQUIRE(drain() == Bytes{0xEE});
  REQUIRE(system.resets == 0);
}

TEST_CASE_METHOD(Fixture, "i8042_state_round_trips_with_its_lines", "[i8042]") {
  const auto fresh = state();
  command(0x60, 0x47);
  keyboard.key(kA, true);
  command(0xD4);
  const auto saved = state();
  controller.reset();
  REQUIRE(state() == fresh);
  REQUIRE_FALSE(irqs.level(1));
  REQUIRE(controller.load(StateReader(saved)).has_value());
  REQUIRE(state() == saved);
  REQUIRE(irqs.level(1));
  REQUIRE(data() == 0x1E);
  REQUIRE_FALSE(controller.load(StateReader(std::span(saved).first(saved.size() - 3))).has_value());
}

TEST_CASE_METHOD(Fixture, "i8042_survives_random_accesses", "[i8042]") {
  std::mt19937 engine(8042);
  const auto random = [&] { return static_cast<unsigned>(engine()); };
  for (int i = 0; i < 20000; ++i) {
    controller.write(random() % 2 * 4, 1, random() & 0xFF);
    REQUIRE(controller.read(random() % 2 * 4, 1) <= 0xFF);
    keyboard.key(static_cast<KeyNumber>(random()), random() % 2 == 0);
    mouse.move(static_cast<int>(random() % 512) - 256, 3, 1, random() % 8);
  }
  controller.reset();
  keyboard.reset();
  put(0xEE);
  REQUIRE(drain() == Bytes{0xEE});
}
