#include "devices/legacy/uart_16550a.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

using namespace whistler;

namespace {

struct Collector final : CharBackend {
  std::string text;
  void send(std::uint8_t byte) override { text.push_back(static_cast<char>(byte)); }
};

struct Fixture {
  ManualClock clock;
  TimerQueue timers{clock};
  IrqRecorder irqs;
  Collector backend;
  Uart16550a uart{"serial0", timers, IrqLine(irqs, 4), &backend};

  unsigned get(unsigned offset) { return static_cast<unsigned>(uart.read(offset, 1)); }
  void put(unsigned offset, std::uint8_t value) { uart.write(offset, 1, value); }
  void receive(const std::string& text) {
    uart.receive(std::span(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
  }
  void step(Nanoseconds by) {
    clock.advance(by);
    timers.run_expired();
  }
  StateBytes state() const {
    StateWriter writer;
    uart.save(writer);
    return writer.bytes();
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "uart_fresh_registers_have_reset_values", "[uart]") {
  REQUIRE(get(1) == 0x00);
  REQUIRE(get(2) == 0x01);
  REQUIRE(get(3) == 0x00);
  REQUIRE(get(4) == 0x08);
  REQUIRE(get(5) == 0x60);
  REQUIRE(get(6) == 0xB0);
  REQUIRE(get(7) == 0x00);
}

TEST_CASE_METHOD(Fixture, "uart_written_bytes_leave_at_once", "[uart]") {
  put(0, 'O');
  put(0, 'K');
  REQUIRE(backend.text == "OK");
  REQUIRE(get(5) == 0x60);
}

TEST_CASE_METHOD(Fixture, "uart_divisor_latch_hides_data_and_ier", "[uart]") {
  put(3, 0x83);
  put(0, 0x01);
  put(1, 0x02);
  REQUIRE(get(0) == 0x01);
  REQUIRE(get(1) == 0x02);
  put(3, 0x03);
  REQUIRE(get(1) == 0x00);
  REQUIRE(backend.text.empty());
}

TEST_CASE_METHOD(Fixture, "uart_transmitter_interrupt_is_cleared_by_iir_and_comes_with_each_byte", "[uart]") {
  put(1, 0x02);
  REQUIRE(irqs.level(4));
  REQUIRE(get(2) == 0x02);
  REQUIRE_FALSE(irqs.level(4));
  REQUIRE(get(2) == 0x01);
  put(0, 'a');
  put(0, 'b');
  REQUIRE(irqs.raised(4) == 3);
}

TEST_CASE_METHOD(Fixture, "uart_interrupts_come_by_priority", "[uart]") {
  put(1, 0x0F);
  receive("ab");  // the second overruns without a FIFO
  uart.set_modem_lines(0);
  REQUIRE(get(2) == 0x06);
  REQUIRE(get(5) == 0x63);
  REQUIRE(get(2) == 0x04);
  REQUIRE(get(0) == 'b');
  REQUIRE(get(2) == 0x02);
  REQUIRE(get(2) == 0x00);
  REQUIRE(get(6) == 0x0B);
  REQUIRE(get(2) == 0x01);
  REQUIRE_FALSE(irqs.level(4));
}

TEST_CASE_METHOD(Fixture, "uart_ring_counts_when_it_ends", "[uart]") {
  uart.set_modem_lines(0xF0);
  REQUIRE(get(6) == 0xF0);
  uart.set_modem_lines(0xB0);
  REQUIRE(get(6) == 0xB4);
  REQUIRE(get(6) == 0xB0);
}

TEST_CASE_METHOD(Fixture, "uart_fifo_interrupts_at_its_trigger_level", "[uart]") {
  put(2, 0x81);  // 8 bytes
  put(1, 0x01);
  receive("1234567");
  REQUIRE_FALSE(irqs.level(4));
  receive("8");
  REQUIRE(irqs.level(4));
  REQUIRE(get(2) == 0xC4);
  REQUIRE(get(0) == '1');
  REQUIRE_FALSE(irqs.level(4));
}

TEST_CASE_METHOD(Fixture, "uart_fifo_below_trigger_times_out_after_four_characters", "[uart]") {
  put(3, 0x83);
  put(0, 12);  // 9600 baud
  put(1, 0);
  put(3, 0x03);  // 8N1: ten bits, 1.0417 ms
  put(2, 0xC1);
  put(1, 0x01);
  receive("xy");
  step(4'166'000);
  REQUIRE_FALSE(irqs.level(4));
  step(1'000);
  REQUIRE(irqs.level(4));
  REQUIRE(get(2) == 0xCC);
  REQUIRE(get(0) == 'x');
  REQUIRE_FALSE(irqs.level(4));
  step(4'167'000);
  REQUIRE(get(2) == 0xCC);
  REQUIRE(get(0) == 'y');
  step(10'000'000);
  REQUIRE(get(2) == 0xC1);
}

TEST_CASE_METHOD(Fixture, "uart_room_shrinks_and_growth_is_told", "[uart]") {
  int told = 0;
  uart.on_room([&] { ++told; });
  put(2, 0x01);
  REQUIRE(uart.room() == 16);
  receive("0123456789abcdef");
  REQUIRE(uart.room() == 0);
  REQUIRE(told == 0);
  get(0);
  REQUIRE(told == 1);
  get(0);
  REQUIRE(told == 1);
  REQUIRE(uart.room() == 2);
}

TEST_CASE_METHOD(Fixture, "uart_overrun_keeps_the_fifo_and_sets_oe_once", "[uart]") {
  put(2, 0x01);
  receive("0123456789abcdefX");
  REQUIRE(get(5) == 0x63);
  REQUIRE(get(5) == 0x61);
  std::string read;
  while ((get(5) & 1) != 0) {
    read.push_back(static_cast<char>(get(0)));
  }
  REQUIRE(read == "0123456789abcdef");
}

TEST_CASE_METHOD(Fixture, "uart_fcr_clears_the_receiver_and_fifo_switch_does_too", "[uart]") {
  put(2, 0x01);
  receive("abc");
  put(2, 0x03);
  REQUIRE(get(5) == 0x60);
  receive("abc");
  put(2, 0x00);
  REQUIRE(get(5) == 0x60);
  REQUIRE(get(2) == 0x01);
}

TEST_CASE_METHOD(Fixture, "uart_loopback_returns_bytes_and_modem_lines", "[uart]") {
  put(4, 0x1A);
  REQUIRE(get(6) == 0x90);
  put(4, 0x15);
  REQUIRE(get(6) == 0x60);
  put(0, 'L');
  REQUIRE(get(0) == 'L');
  REQUIRE(backend.text.empty());
  REQUIRE(uart.room() == 0);
  receive("x");
  REQUIRE((get(5) & 1) == 0);
  put(4, 0x0B);
  REQUIRE(get(6) == 0xB0);
}

TEST_CASE_METHOD(Fixture, "uart_scratch_and_masked_registers_keep_their_bits", "[uart]") {
  put(7, 0xA5);
  put(1, 0xFF);
  put(4, 0xEF);
  REQUIRE(get(7) == 0xA5);
  REQUIRE(get(1) == 0x0F);
  REQUIRE(get(4) == 0x0F);
}

TEST_CASE_METHOD(Fixture, "uart_state_round_trips_with_its_timeout", "[uart]") {
  const auto fresh = state();
  put(2, 0xC1);
  put(1, 0x01);
  receive("xy");
  const auto saved = state();
  uart.reset();
  REQUIRE(state() == fresh);
  REQUIRE(uart.load(StateReader(saved)).has_value());
  REQUIRE(state() == saved);
  step(kNanosecondsPerSecond);
  REQUIRE(irqs.level(4));
  REQUIRE(get(0) == 'x');
}

TEST_CASE_METHOD(Fixture, "uart_fifo_index_out_of_range_is_refused", "[uart]") {
  receive("x");
  auto bytes = state();
  const std::string name = "fifo_head";
  const auto at = std::search(bytes.begin(), bytes.end(), name.begin(), name.end());
  REQUIRE(at != bytes.end());
  *(at + static_cast<std::ptrdiff_t>(name.size()) + 4) = 16;
  REQUIRE(uart.load(StateReader(bytes)).error().code == ErrorCode::kCorrupt);
  REQUIRE(get(0) == 'x');
}

TEST_CASE_METHOD(Fixture, "uart_survives_random_accesses", "[uart]") {
  std::mt19937 engine(16550);
  const auto random = [&] { return static_cast<unsigned>(engine()); };
  const std::string text = "0123456789abcdefghij";
  for (int i = 0; i < 20000; ++i) {
    put(random() % 8, static_cast<std::uint8_t>(random()));
    REQUIRE(get(random() % 8) <= 0xFF);
    receive(text.substr(0, random() % 4 == 0 ? random() % text.size() : 0));
    REQUIRE(uart.room() <= 16);
    step(static_cast<Nanoseconds>(random() % 10'000'000));
  }
}
