// Interrupts of the MC146818: alarm, update-ended, periodic, lost ticks.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "devices/legacy/rtc_mc146818.hpp"

using namespace whistler;

namespace {

constexpr std::uint8_t kBinary24 = 0x06;
constexpr std::uint8_t kPie = 0x40;
constexpr std::uint8_t kAie = 0x20;
constexpr std::uint8_t kUie = 0x10;

struct Machine {
  ManualClock clock;
  TimerQueue timers{clock};
  IrqRecorder irqs;
  RtcMc146818 rtc;

  explicit Machine(RtcMc146818::LostTicks lost_ticks = RtcMc146818::LostTicks::kDiscard)
      : rtc(timers, IrqLine(irqs, 8), {.start_seconds = 1296612298, .lost_ticks = lost_ticks}) {}

  std::uint8_t get(std::uint8_t index) {
    rtc.write(0, 1, index);
    return static_cast<std::uint8_t>(rtc.read(1, 1));
  }
  void put(std::uint8_t index, std::uint8_t value) {
    rtc.write(0, 1, index);
    rtc.write(1, 1, value);
  }
  void step(Nanoseconds by) {
    clock.advance(by);
    timers.run_expired();
  }
  /// Goes to the next deadline, at most `limit` from now; false if there is none.
  bool step_to_deadline(Nanoseconds limit = 100 * kNanosecondsPerSecond) {
    const auto deadline = timers.next_deadline();
    if (!deadline || *deadline - clock.now() > limit) {
      return false;
    }
    step(*deadline - clock.now());
    return true;
  }
  void set_time(std::uint8_t hour, std::uint8_t minute, std::uint8_t second) {
    put(0x0A, 0x76);
    put(4, hour);
    put(2, minute);
    put(0, second);
    get(0x0C);
    put(0x0A, 0x26);
  }
  void set_alarm(std::uint8_t hour, std::uint8_t minute, std::uint8_t second) {
    put(5, hour);
    put(3, minute);
    put(1, second);
  }
  /// How many periodic interrupts a guest that answers at once counts in `span`.
  unsigned count_ticks(Nanoseconds span) {
    unsigned count = 0;
    const auto end = clock.now() + span;
    while (step_to_deadline(end - clock.now())) {
      if (irqs.level(8) && (get(0x0C) & 0x40) != 0) {
        ++count;
      }
    }
    step(end - clock.now());
    return count;
  }
};

}  // namespace

TEST_CASE("rtc_update_interrupt_comes_each_second_until_c_is_read", "[rtc]") {
  Machine machine;
  machine.put(0x0B, kBinary24 | kUie);
  machine.step(999'999'999);
  REQUIRE_FALSE(machine.irqs.level(8));
  machine.step(1);
  REQUIRE(machine.irqs.level(8));
  REQUIRE(machine.get(0x0C) == 0x90);
  REQUIRE_FALSE(machine.irqs.level(8));
  REQUIRE(machine.get(0x0C) == 0);
  machine.step(kNanosecondsPerSecond);
  REQUIRE(machine.irqs.raised(8) == 2);
}

TEST_CASE("rtc_flags_come_without_enables_but_no_interrupt", "[rtc]") {
  Machine machine;
  machine.put(0x0B, kBinary24);
  machine.set_alarm(0xC0, 0xC0, 0xC0);
  machine.step(kNanosecondsPerSecond);
  REQUIRE(machine.get(0x0C) == 0x30);
  REQUIRE(machine.irqs.raised(8) == 0);
  REQUIRE_FALSE(machine.timers.next_deadline().has_value());  // an idle clock costs nothing
}

TEST_CASE("rtc_enable_of_a_pending_flag_interrupts_at_once", "[rtc]") {
  Machine machine;
  machine.step(kNanosecondsPerSecond);
  machine.put(0x0B, kBinary24 | kUie);
  REQUIRE(machine.irqs.level(8));
  machine.put(0x0B, kBinary24);
  REQUIRE_FALSE(machine.irqs.level(8));
}

TEST_CASE("rtc_alarm_with_dont_care_hits_the_next_match", "[rtc]") {
  Machine machine;
  machine.put(0x0B, kBinary24);
  machine.set_time(2, 4, 58);
  machine.set_alarm(0xFF, 0xC0, 3);
  machine.put(0x0B, kBinary24 | kAie);
  machine.step(4'499'999'999);
  REQUIRE_FALSE(machine.irqs.level(8));
  machine.step(1);  // half a second after the divider reset and four more: 02:05:03
  REQUIRE(machine.irqs.level(8));
  REQUIRE((machine.get(0x0C) & 0xA0) == 0xA0);
  REQUIRE(machine.get(0) == 3);
}

TEST_CASE("rtc_alarm_tells_morning_from_evening", "[rtc]") {
  Machine machine;
  machine.put(0x0B, 0x04);  // binary, 12 hours
  machine.set_alarm(0x82, 0xC0, 0xC0);
  machine.set_time(3, 0, 0);
  machine.step(11 * 3600 * kNanosecondsPerSecond);
  REQUIRE(machine.get(4) == 0x82);
  REQUIRE((machine.get(0x0C) & 0x20) != 0);
  machine.put(5, 2);
  machine.set_time(3, 0, 0);
  machine.step(11 * 3600 * kNanosecondsPerSecond);
  REQUIRE(machine.get(4) == 0x82);
  REQUIRE((machine.get(0x0C) & 0x20) == 0);
}

TEST_CASE("rtc_alarm_out_of_range_never_comes", "[rtc]") {
  Machine machine;
  machine.put(0x0B, kBinary24 | kAie);
  machine.set_alarm(0xC0, 0xC0, 75);
  machine.step(2 * 86400 * kNanosecondsPerSecond);
  REQUIRE((machine.get(0x0C) & 0x20) == 0);
}

TEST_CASE("rtc_uip_is_not_stuck_when_the_alarm_moves_away", "[rtc]") {
  Machine machine;
  machine.put(0x0B, 0x02);
  machine.set_time(0x02, 0x04, 0x58);
  machine.step(500'000'000);
  REQUIRE((machine.get(0x0A) & 0x80) == 0);
  machine.set_alarm(0x02, 0xC0, 0xC0);
  machine.step(kNanosecondsPerSecond - 244140 / 2);
  REQUIRE((machine.get(0x0A) & 0x80) != 0);
  machine.put(5, 0x03);
  machine.step(244140);
  REQUIRE((machine.get(0x0A) & 0x80) == 0);
}

TEST_CASE("rtc_periodic_rates_follow_the_table", "[rtc]") {
  struct Rate {
    std::uint8_t code;
    unsigned hertz;
  };
  const auto rate =
      GENERATE(Rate{1, 256}, Rate{2, 128}, Rate{3, 8192}, Rate{6, 1024}, Rate{10, 64}, Rate{15, 2});
  Machine machine;
  machine.put(0x0A, static_cast<std::uint8_t>(0x20 | rate.code));
  machine.put(0x0B, kBinary24 | kPie);
  REQUIRE(machine.count_ticks(kNanosecondsPerSecond) == rate.hertz);
}

TEST_CASE("rtc_periodic_rate_0_is_silent", "[rtc]") {
  Machine machine;
  machine.put(0x0A, 0x20);
  machine.put(0x0B, kBinary24 | kPie);
  REQUIRE(machine.count_ticks(kNanosecondsPerSecond) == 0);
}

TEST_CASE("rtc_periodic_rate_change_counts_from_the_last_tick", "[rtc]") {
  Machine machine;
  machine.put(0x0A, 13);  // 8 Hz, another time base
  machine.put(0x0B, kBinary24 | kPie);
  REQUIRE(machine.step_to_deadline());
  const auto start = machine.clock.now();
  machine.get(0x0C);
  for (int i = 0; i < 50; ++i) {
    machine.put(0x0A, 13);
    REQUIRE(machine.step_to_deadline());
    REQUIRE((machine.get(0x0C) & 0x40) != 0);
    machine.put(0x0A, 15);
    REQUIRE(machine.step_to_deadline());
    REQUIRE((machine.get(0x0C) & 0x40) != 0);
  }
  const Nanoseconds expected = Nanoseconds{50} * (125'000'000 + 500'000'000);
  REQUIRE(std::abs(machine.clock.now() - start - expected) < 1000);
}

TEST_CASE("rtc_lost_ticks_are_discarded_by_default", "[rtc]") {
  Machine machine;
  machine.put(0x0B, kBinary24 | kPie);  // 1024 Hz
  machine.step(kNanosecondsPerSecond);
  machine.get(0x0C);
  REQUIRE(machine.count_ticks(kNanosecondsPerSecond) == 1024);
}

TEST_CASE("rtc_lost_ticks_are_made_up_for_on_request", "[rtc]") {
  Machine machine(RtcMc146818::LostTicks::kReinject);
  machine.put(0x0A, 0x2A);  // 64 Hz
  machine.put(0x0B, kBinary24 | kPie);
  machine.step(kNanosecondsPerSecond);  // the guest is not run: 64 ticks, one of them pending
  REQUIRE((machine.get(0x0C) & 0x40) != 0);
  REQUIRE((machine.get(0x0C) & 0x40) == 0);
  REQUIRE(machine.count_ticks(10 * kNanosecondsPerSecond) == 640 + 63);
  REQUIRE(machine.count_ticks(kNanosecondsPerSecond) == 64);
}

TEST_CASE("rtc_lost_ticks_of_a_long_absence_are_forgiven", "[rtc]") {
  Machine machine(RtcMc146818::LostTicks::kReinject);
  machine.put(0x0A, 0x2A);
  machine.put(0x0B, kBinary24 | kPie);
  machine.step(3600 * kNanosecondsPerSecond);
  machine.get(0x0C);
  REQUIRE(machine.count_ticks(100 * kNanosecondsPerSecond) == 6400 + 640);
}
