#include "devices/legacy/rtc_mc146818.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

using namespace whistler;

namespace {

constexpr std::uint8_t kBinary24 = 0x06;
constexpr std::uint8_t kBcd24 = 0x02;
constexpr Nanoseconds kUipLead = 244140;
/// 2011-02-02 02:04:58.
constexpr std::int64_t kMoment = 1296612298;

struct Fixture {
  ManualClock clock;
  TimerQueue timers{clock};
  IrqRecorder irqs;
  RtcMc146818 rtc{timers, IrqLine(irqs, 8), {.start_seconds = kMoment}};

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
  void set_time(std::uint8_t mode, std::uint8_t hour, std::uint8_t minute, std::uint8_t second) {
    put(0x0B, mode);
    put(0x0A, 0x76);
    put(4, hour);
    put(2, minute);
    put(0, second);
    put(0x0A, 0x26);
  }
  void set_date(std::uint8_t century, std::uint8_t year, std::uint8_t month, std::uint8_t day) {
    put(0x32, century);
    put(9, year);
    put(8, month);
    put(7, day);
  }
  std::vector<int> time() { return {get(4), get(2), get(0)}; }
  std::vector<int> date() { return {get(0x32), get(9), get(8), get(7)}; }
};

using Values = std::vector<int>;

}  // namespace

TEST_CASE_METHOD(Fixture, "rtc_fresh_shows_start_time_in_bcd", "[rtc]") {
  REQUIRE(time() == Values{0x02, 0x04, 0x58});
  REQUIRE(date() == Values{0x20, 0x11, 0x02, 0x02});
  REQUIRE(get(6) == 4);  // a Wednesday
  REQUIRE(Values{get(0x0A), get(0x0B), get(0x0C), get(0x0D)} == Values{0x26, 0x02, 0x00, 0x80});
  REQUIRE(rtc.read(0, 1) == 0xFF);
}

TEST_CASE_METHOD(Fixture, "rtc_binary_mode_shows_the_same_time", "[rtc]") {
  put(0x0B, kBinary24);
  REQUIRE(time() == Values{2, 4, 58});
  REQUIRE(date() == Values{20, 11, 2, 2});
}

TEST_CASE_METHOD(Fixture, "rtc_index_keeps_seven_bits_and_the_nmi_mask", "[rtc]") {
  put(0x40, 0x5A);
  rtc.write(0, 1, 0xC0);
  REQUIRE(rtc.nmi_masked());
  REQUIRE(rtc.read(1, 1) == 0x5A);
  rtc.write(0, 1, 0x40);
  REQUIRE_FALSE(rtc.nmi_masked());
}

TEST_CASE_METHOD(Fixture, "rtc_century_has_a_ps2_alias", "[rtc]") {
  REQUIRE(get(0x37) == 0x20);
  put(0x37, 0x19);
  REQUIRE(get(0x32) == 0x19);
}

TEST_CASE_METHOD(Fixture, "rtc_twelve_hours_bcd_wraps_as_people_do", "[rtc]") {
  set_time(0, 0x81, 0x59, 0x00);
  step(kNanosecondsPerSecond);
  REQUIRE(time() == Values{0x81, 0x59, 0x01});
  step(59 * kNanosecondsPerSecond);
  REQUIRE(time() == Values{0x82, 0x00, 0x00});
  set_time(0, 0x12, 0x59, 0x59);  // after midnight
  step(kNanosecondsPerSecond);
  REQUIRE(time() == Values{0x01, 0x00, 0x00});
  set_time(0, 0x11, 0x59, 0x59);
  step(kNanosecondsPerSecond);
  REQUIRE(time() == Values{0x92, 0x00, 0x00});
  set_time(0, 0x91, 0x59, 0x59);
  step(kNanosecondsPerSecond);
  REQUIRE(time() == Values{0x12, 0x00, 0x00});
}

TEST_CASE_METHOD(Fixture, "rtc_twelve_hours_binary_wraps_as_people_do", "[rtc]") {
  set_time(4, 0x8C, 59, 59);
  step(kNanosecondsPerSecond);
  REQUIRE(time() == Values{0x81, 0, 0});
  set_time(4, 0x0B, 59, 59);
  step(kNanosecondsPerSecond);
  REQUIRE(time() == Values{0x8C, 0, 0});
  set_time(4, 0x8B, 59, 59);
  step(kNanosecondsPerSecond);
  REQUIRE(time() == Values{0x0C, 0, 0});
}

TEST_CASE_METHOD(Fixture, "rtc_year_ends_with_the_century", "[rtc]") {
  put(0x0B, kBcd24 | 0x80);
  set_date(0x19, 0x99, 0x12, 0x31);
  put(4, 0x23);
  put(2, 0x59);
  put(0, 0x59);
  put(0x0B, kBcd24);
  step(kNanosecondsPerSecond);
  REQUIRE(time() == Values{0, 0, 0});
  REQUIRE(date() == Values{0x20, 0x00, 0x01, 0x01});
  REQUIRE(get(6) == 7);  // a Saturday
}

TEST_CASE_METHOD(Fixture, "rtc_february_knows_leap_years", "[rtc]") {
  put(0x0B, kBinary24);
  set_date(20, 0, 2, 28);
  step(86400 * kNanosecondsPerSecond);
  REQUIRE(date() == Values{20, 0, 2, 29});
  set_date(19, 0, 2, 28);
  step(86400 * kNanosecondsPerSecond);
  REQUIRE(date() == Values{19, 0, 3, 1});
}

TEST_CASE_METHOD(Fixture, "rtc_years_1980_and_2080_are_kept", "[rtc]") {
  set_date(0x19, 0x80, 0x02, 0x02);
  REQUIRE(date() == Values{0x19, 0x80, 0x02, 0x02});
  set_date(0x20, 0x80, 0x02, 0x02);
  REQUIRE(date() == Values{0x20, 0x80, 0x02, 0x02});
}

TEST_CASE_METHOD(Fixture, "rtc_set_bit_stops_the_registers", "[rtc]") {
  put(0x0B, kBcd24 | 0x80);
  step(3 * kNanosecondsPerSecond);
  REQUIRE(time() == Values{0x02, 0x04, 0x58});
  put(0, 0x30);
  put(0x0B, kBcd24);
  REQUIRE(get(0) == 0x30);
  step(kNanosecondsPerSecond);
  REQUIRE(get(0) == 0x31);
}

TEST_CASE_METHOD(Fixture, "rtc_set_bit_clears_update_interrupt_enable", "[rtc]") {
  put(0x0B, kBcd24 | 0x90);
  REQUIRE(get(0x0B) == (kBcd24 | 0x80));
}

TEST_CASE_METHOD(Fixture, "rtc_first_update_comes_half_a_second_after_divider_reset", "[rtc]") {
  step(123456789);
  put(0x0A, 0x76);
  put(0, 0x58);
  step(kNanosecondsPerSecond);
  REQUIRE(get(0) == 0x58);
  put(0x0A, 0x26);
  step(kNanosecondsPerSecond / 2 - kUipLead - 1);
  REQUIRE((get(0x0A) & 0x80) == 0);
  REQUIRE(get(0) == 0x58);
  step(1);
  REQUIRE((get(0x0A) & 0x80) != 0);
  step(kUipLead);
  REQUIRE((get(0x0A) & 0x80) == 0);
  REQUIRE(get(0) == 0x59);
}

TEST_CASE_METHOD(Fixture, "rtc_written_second_keeps_the_phase", "[rtc]") {
  step(700'000'000);
  put(0, 0x10);
  step(299'999'999);
  REQUIRE(get(0) == 0x10);
  step(1);
  REQUIRE(get(0) == 0x11);
}

TEST_CASE_METHOD(Fixture, "rtc_cmos_bytes_are_set_by_the_board_and_the_guest", "[rtc]") {
  rtc.set_cmos(0x10, 0x40);
  rtc.set_cmos(0x0B, 0xFF);  // a clock register
  rtc.set_cmos(200, 0xFF);
  REQUIRE(get(0x10) == 0x40);
  REQUIRE(get(0x0B) == 0x02);
  put(0x0F, 0x05);
  REQUIRE(rtc.cmos(0x0F) == 0x05);
}

TEST_CASE_METHOD(Fixture, "rtc_seconds_follow_the_guest_clock_and_can_be_set", "[rtc]") {
  step(10 * kNanosecondsPerSecond);
  REQUIRE(rtc.seconds() == kMoment + 10);
  rtc.set_seconds(0);
  REQUIRE(date() == Values{0x19, 0x70, 0x01, 0x01});
}

TEST_CASE_METHOD(Fixture, "rtc_reset_keeps_battery_backed_bytes_and_clears_interrupts", "[rtc]") {
  put(0x0F, 0x0A);
  put(0x0B, kBcd24 | 0x78);
  step(2 * kNanosecondsPerSecond);
  REQUIRE(irqs.level(8));
  rtc.reset();
  REQUIRE_FALSE(irqs.level(8));
  REQUIRE(get(0x0B) == kBcd24);
  REQUIRE(get(0x0C) == 0);
  REQUIRE(get(0x0F) == 0x0A);
  REQUIRE(rtc.seconds() == kMoment + 2);
}

TEST_CASE_METHOD(Fixture, "rtc_reset_equals_fresh_object", "[rtc]") {
  StateWriter fresh;
  rtc.save(fresh);
  put(0x0B, kBcd24 | 0x70);
  rtc.reset();
  StateWriter after;
  rtc.save(after);
  REQUIRE(after.bytes() == fresh.bytes());
}

TEST_CASE_METHOD(Fixture, "rtc_saved_state_comes_back", "[rtc]") {
  put(0x0B, kBinary24 | 0x50);
  put(0x0A, 0x2F);
  put(0x40, 0x11);
  step(400'000'000);
  StateWriter saved;
  rtc.save(saved);
  put(0x0B, 0x80);
  put(0x40, 0x22);
  rtc.set_seconds(5);
  REQUIRE(rtc.load(StateReader(saved.bytes())).has_value());
  StateWriter again;
  rtc.save(again);
  REQUIRE(again.bytes() == saved.bytes());
  REQUIRE_FALSE(irqs.level(8));
  step(100'000'000);  // the 2 Hz tick is armed again
  REQUIRE(irqs.level(8));
  REQUIRE((get(0x0C) & 0xC0) == 0xC0);
}

TEST_CASE_METHOD(Fixture, "rtc_damaged_state_is_refused", "[rtc]") {
  StateWriter saved;
  rtc.save(saved);
  auto bytes = saved.bytes();
  bytes.resize(bytes.size() - 8);
  REQUIRE_FALSE(rtc.load(StateReader(bytes)).has_value());
  bytes = saved.bytes();
  bytes.back() = 0x7F;  // the sign and high bits of reinject_time
  REQUIRE(rtc.load(StateReader(bytes)).error().code == ErrorCode::kCorrupt);
}

TEST_CASE_METHOD(Fixture, "rtc_survives_random_accesses", "[rtc]") {
  std::mt19937 engine(4711);
  const auto random = [&] { return static_cast<unsigned>(engine()); };
  for (int i = 0; i < 20000; ++i) {
    const auto index = static_cast<std::uint8_t>(random() % 5 == 0 ? random() % 128 : random() % 16);
    put(index, static_cast<std::uint8_t>(random()));
    REQUIRE(get(index) <= 0xFF);
    if (random() % 8 == 0) {
      step(static_cast<Nanoseconds>(random() % 3'000'000'000U));
    }
  }
}

TEST_CASE_METHOD(Fixture, "rtc_set_by_the_guest_tells_how_far_off_it_is", "[rtc]") {
  std::vector<std::int64_t> told;
  rtc.watch_time([&](std::int64_t offset) { told.push_back(offset); });
  step(10 * kNanosecondsPerSecond);
  put(0x0B, 0x80 | kBinary24);
  put(4, 3);  // an hour later than it is
  REQUIRE(told.empty());
  put(0x0B, kBinary24);
  REQUIRE(told == std::vector<std::int64_t>{3600});
  put(0x0B, 0x80 | kBinary24);
  put(0x0B, kBinary24);
  REQUIRE(told.size() == 1);  // no change
}
