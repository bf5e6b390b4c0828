#include "devices/chipset/piix4_pm.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace whistler;

namespace {

constexpr std::uint64_t kPm = 0x600;
constexpr std::uint64_t kSmb = 0xB100;
constexpr std::uint64_t kSts = kPm;
constexpr std::uint64_t kEn = kPm + 2;
constexpr std::uint64_t kCnt = kPm + 4;
constexpr std::uint64_t kTmr = kPm + 8;
constexpr Nanoseconds kToggle = time_of_tick(0x800000, Piix4Pm::kTimerHertz);

struct Fixture {
  ManualClock clock;
  TimerQueue timers{clock};
  Bus ports{"io"};
  IrqRecorder irqs;
  std::vector<SleepState> sleeps;
  Piix4Pm chip{timers, ports, IrqLine(irqs, 9), [this](SleepState state) { sleeps.push_back(state); }};
  Fixture() {
    REQUIRE(ports.map({.base = 0xB2, .length = 2}, chip.apm(), "apm").has_value());
    REQUIRE(ports.map({.base = 0xAFE0, .length = 4}, chip.gpe(), "gpe").has_value());
    open();
  }
  void open() {
    chip.config_write(0x40, 4, kPm | 1);
    chip.config_write(0x80, 1, 1);
  }
  void advance_to(Nanoseconds now) {
    clock.set(now);
    timers.run_expired();
  }
  [[nodiscard]] StateBytes saved() const {
    StateWriter writer;
    chip.save(writer);
    return writer.bytes();
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "piix4_after_reset_identifies_itself", "[chipset]") {
  chip.reset();
  REQUIRE(chip.config_read(0, 4) == 0x71138086);
  REQUIRE(chip.config_read(kPciRevision, 4) == 0x06800003);
  REQUIRE(chip.config_read(kPciStatus, 2) == 0x0280);
  REQUIRE(chip.config_read(kPciInterruptPin, 1) == 1);
  REQUIRE(chip.config_read(0x40, 4) == 1);
  REQUIRE(chip.config_read(0x90, 4) == 0xB101);
  REQUIRE(chip.config_read(0xD2, 1) == 0x09);
  REQUIRE((chip.config_read(0x5B, 1) & 2) != 0);
}

TEST_CASE_METHOD(Fixture, "piix4_tells_which_serial_ports_there_are", "[chipset]") {
  REQUIRE(chip.config_read(0x67, 1) == 0x00);
  chip.announce_serial_ports(true, false);
  REQUIRE(chip.config_read(0x67, 1) == 0x08);
  chip.announce_serial_ports(true, true);
  chip.config_write(0x67, 1, 0);
  chip.reset();
  REQUIRE(chip.config_read(0x67, 1) == 0x98);
}

TEST_CASE_METHOD(Fixture, "piix4_pm_range_is_decoded_where_pmbase_says_and_only_when_enabled", "[chipset]") {
  REQUIRE(ports.read(kCnt, 2) == 0);
  chip.config_write(0x80, 1, 0);
  REQUIRE(ports.read(kCnt, 2) == 0xFFFF);
  chip.config_write(0x40, 4, 0xB000);
  chip.config_write(0x80, 1, 1);
  REQUIRE(ports.read(kCnt, 2) == 0xFFFF);
  REQUIRE(ports.read(0xB004, 2) == 0);
  REQUIRE(chip.config_read(0x40, 4) == 0xB001);
}

TEST_CASE_METHOD(Fixture, "piix4_pm_range_over_a_taken_one_waits_until_it_is_free", "[chipset]") {
  chip.config_write(0x40, 4, 0xAFC0);  // over the general purpose event block
  REQUIRE(ports.read(0xAFC4, 2) == 0xFFFF);
  ports.unmap(chip.gpe());
  chip.config_write(0x40, 4, 0xAFC0);
  REQUIRE(ports.read(0xAFC4, 2) == 0);
}

TEST_CASE_METHOD(Fixture, "piix4_pm_timer_counts_3579545_a_second_in_24_bits", "[chipset]") {
  REQUIRE(ports.read(kTmr, 4) == 0);
  clock.set(kNanosecondsPerSecond);
  REQUIRE(ports.read(kTmr, 4) == 3'579'545);
  clock.set(10 * kNanosecondsPerSecond);
  REQUIRE(ports.read(kTmr, 4) == (35'795'450 & 0xFFFFFF));
  REQUIRE(ports.read(kTmr + 1, 2) == ((35'795'450 >> 8) & 0xFFFF));
  ports.write(kTmr, 4, 0);
  REQUIRE(ports.read(kTmr, 4) == (35'795'450 & 0xFFFFFF));
}

TEST_CASE_METHOD(Fixture, "piix4_timer_toggle_sets_status_and_raises_the_sci_when_enabled", "[chipset]") {
  ports.write(kEn, 2, 1);
  advance_to(kToggle - 1);
  REQUIRE_FALSE(irqs.level(9));
  REQUIRE(ports.read(kSts, 2) == 0);
  advance_to(kToggle);
  REQUIRE(irqs.level(9));
  REQUIRE(ports.read(kSts, 2) == 1);
  ports.write(kSts, 2, 1);
  REQUIRE_FALSE(irqs.level(9));
  advance_to(2 * kToggle);
  REQUIRE(irqs.raised(9) == 2);
}

TEST_CASE_METHOD(Fixture, "piix4_timer_toggle_unseen_needs_no_timer", "[chipset]") {
  REQUIRE_FALSE(timers.next_deadline().has_value());
  clock.set(5 * kToggle);
  REQUIRE(ports.read(kSts, 2) == 1);
  ports.write(kSts, 2, 1);
  REQUIRE(ports.read(kSts, 2) == 0);
}

TEST_CASE_METHOD(Fixture, "piix4_power_button_raises_the_sci_until_its_status_is_cleared", "[chipset]") {
  chip.power_button();
  REQUIRE_FALSE(irqs.level(9));
  ports.write(kEn, 2, 0x0100);
  REQUIRE(irqs.level(9));
  REQUIRE(ports.read(kSts, 2) == 0x0100);
  ports.write(kSts + 1, 1, 0x01);
  REQUIRE_FALSE(irqs.level(9));
}

TEST_CASE_METHOD(Fixture, "piix4_rtc_alarm_sets_its_status", "[chipset]") {
  ports.write(kEn, 2, 0x0400);
  chip.rtc_alarm();
  REQUIRE(ports.read(kSts, 2) == 0x0400);
  REQUIRE(irqs.level(9));
}

TEST_CASE_METHOD(Fixture, "piix4_enable_register_keeps_only_its_four_events", "[chipset]") {
  ports.write(kEn, 2, 0xFFFF);
  REQUIRE(ports.read(kEn, 2) == 0x0521);
}

TEST_CASE_METHOD(Fixture, "piix4_sleep_enable_asks_for_the_state_of_sus_typ", "[chipset]") {
  ports.write(kCnt, 2, 0x0001);
  REQUIRE(sleeps.empty());
  ports.write(kCnt, 2, 0x2001);
  ports.write(kCnt, 2, 0x2401);
  ports.write(kCnt, 2, 0x2801);
  ports.write(kCnt, 2, 0x3401);  // 5: working, clock control
  REQUIRE(sleeps == std::vector{SleepState::kS5, SleepState::kS3, SleepState::kS4});
  REQUIRE(ports.read(kCnt, 2) == 0x1401);
}

TEST_CASE_METHOD(Fixture, "piix4_apm_command_switches_acpi_on_and_off", "[chipset]") {
  ports.write(0xB2, 1, 0xF1);
  REQUIRE(chip.acpi_enabled());
  REQUIRE(ports.read(kCnt, 2) == 1);
  REQUIRE(ports.read(0xB2, 1) == 0xF1);
  ports.write(0xB2, 1, 0xF0);
  REQUIRE_FALSE(chip.acpi_enabled());
  ports.write(0xB3, 1, 0x5A);
  REQUIRE(ports.read(0xB3, 1) == 0x5A);
}

TEST_CASE_METHOD(Fixture, "piix4_gpe_status_clears_by_ones_and_enable_stores", "[chipset]") {
  ports.write(0xAFE0, 4, 0xFFFFFFFF);
  REQUIRE(ports.read(0xAFE0, 4) == 0xFFFF0000);
}

TEST_CASE_METHOD(Fixture, "piix4_smbus_transaction_ends_in_a_device_error", "[chipset]") {
  ports.write(kSmb + 4, 1, 0xA1);
  ports.write(kSmb + 2, 1, 0x48);
  REQUIRE(ports.read(kSmb, 1) == 0x01);
  REQUIRE(ports.read(kSmb, 1) == 0x04);
  ports.write(kSmb, 1, 0xFF);
  REQUIRE(ports.read(kSmb, 1) == 0x00);
  ports.write(kSmb + 2, 1, 0x02);
  REQUIRE(ports.read(kSmb, 1) == 0x10);
}

TEST_CASE_METHOD(Fixture, "piix4_smbus_range_moves_with_smbbase_and_enable", "[chipset]") {
  chip.config_write(0x90, 4, 0x700);
  REQUIRE(ports.read(kSmb, 1) == 0xFF);
  REQUIRE(ports.read(0x700, 1) == 0);
  chip.config_write(0xD2, 1, 0);
  REQUIRE(ports.read(0x700, 1) == 0xFF);
}

TEST_CASE_METHOD(Fixture, "piix4_reset_equals_a_fresh_chip", "[chipset]") {
  ports.write(kEn, 2, 0xFFFF);
  chip.power_button();
  ports.write(0xB2, 2, 0xFFF1);
  ports.write(0xAFE2, 2, 0xFFFF);
  ports.write(kSmb + 5, 1, 7);
  chip.reset();
  Fixture fresh;
  fresh.chip.reset();
  REQUIRE(saved() == fresh.saved());
  REQUIRE_FALSE(irqs.level(9));
  REQUIRE_FALSE(timers.next_deadline().has_value());
  REQUIRE(ports.read(kCnt, 2) == 0xFFFF);
}

TEST_CASE_METHOD(Fixture, "piix4_load_restores_registers_range_sci_and_timer", "[chipset]") {
  ports.write(0xB2, 1, 0xF1);
  ports.write(kEn, 2, 0x0101);
  chip.power_button();
  ports.write(kSmb + 5, 1, 7);
  const auto bytes = saved();
  chip.reset();
  REQUIRE(chip.load(StateReader(bytes)).has_value());
  REQUIRE(saved() == bytes);
  REQUIRE(irqs.level(9));
  REQUIRE(ports.read(kCnt, 2) == 1);
  REQUIRE(timers.next_deadline() == kToggle);
}

TEST_CASE_METHOD(Fixture, "piix4_load_of_short_state_fails_and_changes_nothing", "[chipset]") {
  auto bytes = saved();
  bytes.pop_back();
  ports.write(kEn, 2, 1);
  const auto before = saved();
  REQUIRE_FALSE(chip.load(StateReader(bytes)).has_value());
  REQUIRE(saved() == before);
}

TEST_CASE_METHOD(Fixture, "piix4_load_of_hostile_bytes_never_harms", "[chipset]") {
  auto random = [generator = std::mt19937(3)]() mutable { return static_cast<unsigned>(generator()); };
  const auto good = saved();
  for (unsigned i = 0; i < 2000; ++i) {
    auto bytes = good;
    for (unsigned n = 0; n < 8; ++n) {
      bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
    }
    static_cast<void>(chip.load(StateReader(bytes)));
    static_cast<void>(ports.read(kSmb + 7, 1));
    ports.write(kEn, 2, 1);
    static_cast<void>(ports.read(kTmr, 4));
  }
  chip.reset();
  open();
  REQUIRE(ports.read(kCnt, 2) == 0);
}

TEST_CASE_METHOD(Fixture, "piix4_random_writes_never_harm", "[chipset]") {
  auto random = [generator = std::mt19937(4)]() mutable { return static_cast<unsigned>(generator()); };
  for (unsigned i = 0; i < 5000; ++i) {
    const unsigned width = 1U << random() % 3;
    advance_to(clock.now() + static_cast<Nanoseconds>(random() % 1'000'000'000));
    ports.write(kPm + random() % 64, width, random());
    static_cast<void>(ports.read(kPm + random() % 64, width));
    ports.write(kSmb + random() % 16, 1, random() & 0xFF);
    static_cast<void>(ports.read(kSmb + random() % 16, 1));
    if (i % 16 == 0) {
      chip.config_write(random() % (257 - width), width, random());
      chip.config_write(0x90, 4, kSmb);
      chip.config_write(0xD2, 1, 1);
      open();
    }
    REQUIRE(chip.config_read(0, 4) == 0x71138086);
  }
}
