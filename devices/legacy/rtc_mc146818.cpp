#include "devices/legacy/rtc_mc146818.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace whistler {

namespace {

// Registers (datasheet, figure 11).
constexpr std::uint8_t kSeconds = 0x00;
constexpr std::uint8_t kSecondsAlarm = 0x01;
constexpr std::uint8_t kMinutes = 0x02;
constexpr std::uint8_t kMinutesAlarm = 0x03;
constexpr std::uint8_t kHours = 0x04;
constexpr std::uint8_t kHoursAlarm = 0x05;
constexpr std::uint8_t kDayOfWeek = 0x06;
constexpr std::uint8_t kDayOfMonth = 0x07;
constexpr std::uint8_t kMonth = 0x08;
constexpr std::uint8_t kYear = 0x09;
constexpr std::uint8_t kA = 0x0A;
constexpr std::uint8_t kB = 0x0B;
constexpr std::uint8_t kC = 0x0C;
constexpr std::uint8_t kD = 0x0D;
constexpr std::uint8_t kCentury = 0x32;
constexpr std::uint8_t kCenturyPs2 = 0x37;

constexpr std::uint8_t kAUip = 0x80;
constexpr std::uint8_t kADivider = 0x70;
constexpr std::uint8_t kADividerReset = 0x60;  // DV2 and DV1, whatever DV0
constexpr std::uint8_t kADividerLastRunning = 0x20;
constexpr std::uint8_t kARate = 0x0F;
constexpr std::uint8_t kBSet = 0x80;
constexpr std::uint8_t kBPie = 0x40;
constexpr std::uint8_t kBAie = 0x20;
constexpr std::uint8_t kBUie = 0x10;
constexpr std::uint8_t kBSqwe = 0x08;
constexpr std::uint8_t kBBinary = 0x04;
constexpr std::uint8_t kB24Hours = 0x02;
constexpr std::uint8_t kCIrqf = 0x80;
constexpr std::uint8_t kCPf = 0x40;
constexpr std::uint8_t kCAf = 0x20;
constexpr std::uint8_t kCUf = 0x10;
constexpr std::uint8_t kInterrupts =
    kBPie | kBAie | kBUie;  // the enables in B and the flags in C share their bits
constexpr std::uint8_t kDVrt = 0x80;
constexpr std::uint8_t kPm = 0x80;        // of an hour register in 12-hour mode
constexpr std::uint8_t kDontCare = 0xC0;  // of an alarm register

constexpr std::uint64_t kCrystal = 32768;
/// UIP rises 8 cycles before the update (datasheet, "Update cycle": at least 244 us).
constexpr Nanoseconds kUipLead = 8 * kNanosecondsPerSecond / static_cast<Nanoseconds>(kCrystal);
/// The first update after the divider's reset is released (datasheet, "Divider stages").
constexpr Nanoseconds kAfterDividerReset = kNanosecondsPerSecond / 2;
constexpr std::int64_t kSecondsPerDay = 86400;
/// Years 0 to 19999, more than the registers can hold.
constexpr std::int64_t kMinSeconds = -62'167'219'200;
constexpr std::int64_t kMaxSeconds = 568'971'820'800;
/// Ticks owed for longer than this are forgiven: the guest was not delayed but away.
constexpr std::uint64_t kMaxOwedCrystalTicks = 10 * kCrystal;
/// Moments in a saved state: 73 years either way leaves room to calculate.
constexpr Nanoseconds kMaxTime = Nanoseconds{1} << 61;
constexpr std::uint64_t kMaxCrystalTicks = std::uint64_t{1} << 47;

/// How numbers are written in the registers.
struct Format {
  bool binary;
  bool hours24;

  [[nodiscard]] std::uint8_t encode(unsigned value) const {
    return static_cast<std::uint8_t>(binary ? value : ((value / 10) << 4) + value % 10);
  }
  [[nodiscard]] unsigned decode(std::uint8_t raw) const {
    return binary ? raw : static_cast<unsigned>(raw >> 4) * 10 + (raw & 0x0F);
  }
  [[nodiscard]] std::uint8_t encode_hour(unsigned hour) const {
    if (hours24) {
      return encode(hour);
    }
    const unsigned shown = hour % 12 == 0 ? 12 : hour % 12;
    return static_cast<std::uint8_t>(encode(shown) | (hour >= 12 ? kPm : 0));
  }
  [[nodiscard]] unsigned decode_hour(std::uint8_t raw) const {
    if (hours24) {
      return decode(raw);
    }
    return decode(raw & 0x7F) % 12 + ((raw & kPm) != 0 ? 12 : 0);
  }
};

using Registers = std::array<std::uint8_t, 128>;

Format format_of(const Registers& ram) { return {(ram[kB] & kBBinary) != 0, (ram[kB] & kB24Hours) != 0}; }

void encode_time(Registers& ram, std::int64_t seconds) {
  using namespace std::chrono;
  const auto format = format_of(ram);
  const sys_seconds moment{std::chrono::seconds(seconds)};
  const auto day = floor<days>(moment);
  const hh_mm_ss time{moment - day};
  const year_month_day date{day};
  const auto year = static_cast<unsigned>(std::max(static_cast<int>(date.year()), 0));
  ram[kSeconds] = format.encode(static_cast<unsigned>(time.seconds().count()));
  ram[kMinutes] = format.encode(static_cast<unsigned>(time.minutes().count()));
  ram[kHours] = format.encode_hour(static_cast<unsigned>(time.hours().count()));
  ram[kDayOfWeek] = format.encode(weekday{day}.c_encoding() + 1);
  ram[kDayOfMonth] = format.encode(static_cast<unsigned>(date.day()));
  ram[kMonth] = format.encode(static_cast<unsigned>(date.month()));
  ram[kYear] = format.encode(year % 100);
  ram[kCentury] = format.encode(year / 100 % 100);
}

/// Any register contents give some time; values out of range carry over into the next field.
std::int64_t decode_time(const Registers& ram) {
  using namespace std::chrono;
  const auto format = format_of(ram);
  const unsigned year = format.decode(ram[kCentury]) * 100 + format.decode(ram[kYear]);
  const unsigned month = std::clamp(format.decode(ram[kMonth]), 1U, 12U);
  const sys_days first{std::chrono::year(static_cast<int>(year)) / static_cast<int>(month) / 1};
  const auto day = first + days(static_cast<int>(format.decode(ram[kDayOfMonth])) - 1);
  const std::int64_t seconds = duration_cast<std::chrono::seconds>(day.time_since_epoch()).count() +
                               std::int64_t{format.decode_hour(ram[kHours])} * 3600 +
                               std::int64_t{format.decode(ram[kMinutes])} * 60 + format.decode(ram[kSeconds]);
  return std::clamp(seconds, kMinSeconds, kMaxSeconds);
}

/// Cycles of the crystal between periodic interrupts; 0 if there are none (datasheet, table 5).
std::uint64_t periodic_cycles(const Registers& ram) {
  const unsigned rate = ram[kA] & kARate;
  if (rate == 0 || (ram[kB] & kBPie) == 0) {
    return 0;
  }
  return std::uint64_t{1} << (rate <= 2 ? rate + 6 : rate - 1);
}

/// What an alarm register asks for.
struct AlarmField {
  bool any = false;
  unsigned value = 0;
  [[nodiscard]] bool matches(std::int64_t now) const { return any || now == std::int64_t{value}; }
};

/// The value below `limit` whose register form is `raw`; nothing if there is none, so that the alarm never
/// comes.
template <typename Encode>
std::optional<AlarmField> alarm_field(std::uint8_t raw, unsigned limit, Encode encode) {
  if ((raw & kDontCare) == kDontCare) {
    return AlarmField{.any = true};
  }
  for (unsigned value = 0; value < limit; ++value) {
    if (encode(value) == raw) {
      return AlarmField{.value = value};
    }
  }
  return std::nullopt;
}

bool is_time_register(std::uint8_t index) {
  switch (index) {
    case kSeconds:
    case kMinutes:
    case kHours:
    case kDayOfWeek:
    case kDayOfMonth:
    case kMonth:
    case kYear:
    case kCentury: return true;
    default: return false;
  }
}

bool divider_held(std::uint8_t a) { return (a & kADividerReset) == kADividerReset; }

}  // namespace

RtcMc146818::RtcMc146818(TimerQueue& timers, IrqLine irq, Config config)
    : timers_(timers), irq_(irq), config_(std::move(config)), timer_(timers, [this] {
        settle();
        update_irq();
      }) {
  state_.ram[kA] = 0x26;  // 32768 Hz, 1024 interrupts a second
  state_.ram[kB] = kB24Hours;
  state_.ram[kD] = kDVrt;
  state_.base_seconds = std::clamp(config_.start_seconds, kMinSeconds, kMaxSeconds);
  state_.settled_seconds = shown_seconds();
  encode_time(state_.ram, state_.settled_seconds);
}

bool RtcMc146818::running() const {
  return (state_.ram[kB] & kBSet) == 0 && (state_.ram[kA] & kADivider) <= kADividerLastRunning;
}

/// How far the current second has come.
Nanoseconds RtcMc146818::phase() const {
  return std::max<Nanoseconds>(now() - state_.base_time, 0) % kNanosecondsPerSecond;
}

bool RtcMc146818::update_in_progress() const {
  return running() && phase() >= kNanosecondsPerSecond - kUipLead;
}

std::int64_t RtcMc146818::shown_seconds() const {
  if (!running()) {
    return decode_time(state_.ram);
  }
  const auto elapsed = std::max<Nanoseconds>(now() - state_.base_time, 0) / kNanosecondsPerSecond;
  return std::min(state_.base_seconds + elapsed, kMaxSeconds);
}

bool RtcMc146818::interrupting() const { return (state_.ram[kC] & state_.ram[kB] & kInterrupts) != 0; }

std::uint64_t RtcMc146818::period() const { return periodic_cycles(state_.ram); }

std::uint64_t RtcMc146818::periodic_ticks() const {
  return ticks_in(std::max<Nanoseconds>(now() - state_.periodic_base, 0), kCrystal) / period();
}

/// The first second after `after` that the alarm registers match; at most a day later.
std::optional<std::int64_t> RtcMc146818::next_alarm(std::int64_t after) const {
  const auto format = format_of(state_.ram);
  const auto encode = [&](unsigned value) { return format.encode(value); };
  const auto encode_hour = [&](unsigned value) { return format.encode_hour(value); };
  const auto second = alarm_field(state_.ram[kSecondsAlarm], 60, encode);
  const auto minute = alarm_field(state_.ram[kMinutesAlarm], 60, encode);
  const auto hour = alarm_field(state_.ram[kHoursAlarm], 24, encode_hour);
  if (!second || !minute || !hour) {
    return std::nullopt;
  }
  for (std::int64_t at = after + 1; at <= after + kSecondsPerDay;) {
    const auto of_day = (at % kSecondsPerDay + kSecondsPerDay) % kSecondsPerDay;
    if (!hour->matches(of_day / 3600)) {
      at += 3600 - of_day % 3600;
    } else if (!minute->matches(of_day / 60 % 60)) {
      at += 60 - of_day % 60;
    } else if (!second->matches(of_day % 60)) {
      ++at;
    } else {
      return at;
    }
  }
  return std::nullopt;
}

/// When the interrupt line, low now, will rise if nobody touches a register.
std::optional<Nanoseconds> RtcMc146818::next_event() const {
  std::optional<Nanoseconds> next;
  const auto consider = [&](Nanoseconds at) { next = next ? std::min(*next, at) : at; };
  const auto time_of_second = [&](std::int64_t second) {
    return state_.base_time + (second - state_.base_seconds) * kNanosecondsPerSecond;
  };
  const auto b = state_.ram[kB];
  if (running() && state_.settled_seconds < kMaxSeconds) {
    if ((b & kBUie) != 0) {
      consider(time_of_second(state_.settled_seconds + 1));
    }
    if ((b & kBAie) != 0) {
      if (const auto alarm = next_alarm(state_.settled_seconds)) {
        consider(time_of_second(*alarm));
      }
    }
  }
  if (const auto cycles = period(); cycles != 0) {
    consider(state_.periodic_base + time_of_tick((state_.periodic_settled + 1) * cycles, kCrystal));
    if (state_.lost_ticks != 0) {
      consider(state_.reinject_time);
    }
  }
  return next;
}

/// Brings UF, AF and PF up to now.
void RtcMc146818::settle() {
  if (running()) {
    const auto current = shown_seconds();
    if (current > state_.settled_seconds) {
      state_.ram[kC] |= kCUf;
      if (const auto alarm = next_alarm(state_.settled_seconds); alarm && *alarm <= current) {
        state_.ram[kC] |= kCAf;
      }
      state_.settled_seconds = current;
    }
  }
  if (period() != 0) {
    settle_periodic();
  }
}

void RtcMc146818::settle_periodic() {
  auto& c = state_.ram[kC];
  const auto ticks = periodic_ticks();
  auto fresh = ticks > state_.periodic_settled ? ticks - state_.periodic_settled : 0;
  state_.periodic_settled += fresh;
  if (fresh != 0 && (c & kCPf) == 0) {
    c |= kCPf;
    --fresh;
  }
  if (config_.lost_ticks == LostTicks::kReinject) {
    state_.lost_ticks = std::min(state_.lost_ticks + fresh, kMaxOwedCrystalTicks / period());
    if (state_.lost_ticks != 0 && (c & kCPf) == 0 && now() >= state_.reinject_time) {
      c |= kCPf;
      --state_.lost_ticks;
    }
  }
}

void RtcMc146818::update_irq() {
  irq_.set(interrupting());
  const auto next = interrupting() ? std::nullopt : next_event();
  if (next) {
    timer_.arm(*next);
  } else {
    timer_.cancel();
  }
}

std::uint64_t RtcMc146818::read(std::uint64_t offset, unsigned /*width*/) {
  if (offset != 1) {
    return 0xFF;
  }
  return read_register(state_.index == kCenturyPs2 ? kCentury : state_.index);
}

std::uint8_t RtcMc146818::read_register(std::uint8_t index) {
  if (index == kC) {
    return take_c();
  }
  if (index == kA) {
    return static_cast<std::uint8_t>(state_.ram[kA] | (update_in_progress() ? kAUip : 0));
  }
  if (is_time_register(index) && running()) {
    encode_time(state_.ram, shown_seconds());
  }
  return state_.ram[index];
}

std::uint8_t RtcMc146818::take_c() {
  settle();
  const auto flags = static_cast<std::uint8_t>(state_.ram[kC] | (interrupting() ? kCIrqf : 0));
  state_.ram[kC] = 0;
  if (state_.lost_ticks != 0 && period() != 0) {
    // Not at once: a handler that reads until the flags are clear would count many ticks as one.
    state_.reinject_time = now() + time_of_tick(period(), kCrystal) / 4;
  }
  update_irq();
  return flags;
}

void RtcMc146818::write(std::uint64_t offset, unsigned /*width*/, std::uint64_t value) {
  const auto byte = static_cast<std::uint8_t>(value);
  if (offset == 0) {
    state_.index = byte & 0x7F;
    state_.nmi_masked = (byte & 0x80) != 0;
  } else if (offset == 1) {
    write_register(state_.index == kCenturyPs2 ? kCentury : state_.index, byte);
  }
}

void RtcMc146818::write_register(std::uint8_t index, std::uint8_t value) {
  if (index > kD && index != kCentury) {
    state_.ram[index] = value;
    return;
  }
  if (index == kC || index == kD) {
    return;  // read-only
  }
  settle();
  if (index == kA) {
    write_a(value & 0x7F);
  } else if (index == kB) {
    write_b(value);
  } else if (is_time_register(index)) {
    write_time(index, value);
  } else {
    state_.ram[index] = value;  // an alarm register
  }
  update_irq();
}

void RtcMc146818::write_time(std::uint8_t index, std::uint8_t value) {
  stop_clock();
  state_.ram[index] = value;
  if (running()) {
    start_clock(phase());
    tell_time();
  }
}

void RtcMc146818::tell_time() {
  const auto offset = seconds() - config_.start_seconds - now() / kNanosecondsPerSecond;
  if (told_ && std::exchange(told_offset_, offset) != offset) {
    told_(offset);
  }
}

/// Leaves the current time in the registers, as they stand while the clock does.
void RtcMc146818::stop_clock() {
  if (running()) {
    encode_time(state_.ram, shown_seconds());
  }
}

/// Runs on from the time in the registers, `phase` into its second. That is no update.
void RtcMc146818::start_clock(Nanoseconds phase) {
  state_.base_seconds = decode_time(state_.ram);
  state_.base_time = now() - phase;
  state_.settled_seconds = state_.base_seconds;
}

void RtcMc146818::write_a(std::uint8_t value) {
  stop_clock();
  const bool was_running = running();
  const bool released = divider_held(state_.ram[kA]) && (value & kADivider) <= kADividerLastRunning;
  const auto old_period = period();
  state_.ram[kA] = value;
  if (released) {
    state_.base_time = now() - kAfterDividerReset;  // the divider runs even while SET holds the registers
  }
  if (!was_running && running()) {
    start_clock(phase());
    tell_time();
  }
  if (period() != old_period) {
    restart_periodic(old_period);
  }
}

void RtcMc146818::write_b(std::uint8_t value) {
  const bool was_running = running();
  const auto shown = shown_seconds();
  const auto old_period = period();
  if ((value & kBSet) != 0) {
    value &= static_cast<std::uint8_t>(~kBUie);
  }
  state_.ram[kB] = value;
  if (was_running) {
    encode_time(state_.ram, shown);  // in the new format
  } else if (running()) {
    start_clock(phase());
    tell_time();
  }
  if (period() != old_period) {
    restart_periodic(old_period);
  }
}

/// The next periodic tick comes one new period after the last one, or from now on if there was none.
void RtcMc146818::restart_periodic(std::uint64_t old_period) {
  const auto new_period = period();
  if (old_period == 0 || new_period == 0) {
    state_.periodic_base = now();
    state_.periodic_settled = 0;
    state_.lost_ticks = 0;
    return;
  }
  state_.periodic_base += time_of_tick(state_.periodic_settled * old_period, kCrystal);
  state_.periodic_settled = periodic_ticks();
  state_.lost_ticks = state_.lost_ticks * old_period / new_period;
}

void RtcMc146818::set_cmos(unsigned index, std::uint8_t value) {
  if (index > kD && index < state_.ram.size() && index != kCentury && index != kCenturyPs2) {
    state_.ram[index] = value;
  }
}

std::int64_t RtcMc146818::seconds() const { return shown_seconds(); }

void RtcMc146818::set_seconds(std::int64_t seconds) {
  settle();
  encode_time(state_.ram, std::clamp(seconds, kMinSeconds, kMaxSeconds));
  start_clock(phase());
  update_irq();
}

void RtcMc146818::reset() {
  settle();
  stop_clock();
  const bool was_running = running();
  state_.ram[kB] &= static_cast<std::uint8_t>(~(kInterrupts | kBSqwe));
  state_.ram[kC] = 0;
  state_.index = 0;
  state_.nmi_masked = false;
  state_.periodic_base = 0;
  state_.periodic_settled = 0;
  state_.lost_ticks = 0;
  state_.reinject_time = 0;
  if (!was_running && running()) {
    start_clock(phase());
  }
  update_irq();
}

Result<void> RtcMc146818::load(const StateReader& reader) {
  State loaded;
  if (auto done = reader.get(loaded); !done) {
    return done;
  }
  const auto time_is_sane = [](Nanoseconds time) { return time >= -kMaxTime && time <= kMaxTime; };
  const auto seconds_are_sane = [](std::int64_t s) { return s >= kMinSeconds && s <= kMaxSeconds; };
  const auto cycles = std::max<std::uint64_t>(periodic_cycles(loaded.ram), 1);
  if (loaded.index > 0x7F || !time_is_sane(loaded.base_time) || !time_is_sane(loaded.periodic_base) ||
      !time_is_sane(loaded.reinject_time) || !seconds_are_sane(loaded.base_seconds) ||
      !seconds_are_sane(loaded.settled_seconds) || loaded.settled_seconds < loaded.base_seconds ||
      loaded.settled_seconds - loaded.base_seconds > kMaxTime / kNanosecondsPerSecond ||
      loaded.periodic_settled > kMaxCrystalTicks / cycles || loaded.lost_ticks > kMaxOwedCrystalTicks) {
    return fail(ErrorCode::kCorrupt, config_.id + ": the saved clock is out of range");
  }
  state_ = loaded;
  state_.ram[kA] &= 0x7F;
  state_.ram[kC] &= kInterrupts;
  state_.ram[kD] = kDVrt;
  if (config_.lost_ticks == LostTicks::kDiscard) {
    state_.lost_ticks = 0;  // saved by a clock that kept them
  }
  settle();
  update_irq();
  return {};
}

}  // namespace whistler
