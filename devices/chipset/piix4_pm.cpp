#include "devices/chipset/piix4_pm.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"

namespace whistler {
namespace {

constexpr unsigned kPmbase = 0x40;
constexpr unsigned kDevactb = 0x58;
constexpr unsigned kPmregmisc = 0x80;
constexpr unsigned kSmbbase = 0x90;
constexpr unsigned kSmbhstcfg = 0xD2;
constexpr std::uint32_t kApmcEn = 1U << 25;  // DEVACTB
constexpr std::uint32_t kPmiose = 0x01;      // PMREGMISC
constexpr std::uint32_t kSmbHstEn = 0x01;    // SMBHSTCFG

// Offsets from PMBASE.
constexpr unsigned kPmsts = 0x0;
constexpr unsigned kPmen = 0x2;
constexpr unsigned kPmcntrl = 0x4;
constexpr unsigned kPmtmr = 0x8;

// PMSTS and PMEN: TMR, GBL, PWRBTN, RTC at the same bits of both; PMSTS has RSM (ACPI's WAK_STS) besides.
constexpr std::uint16_t kTmr = 0x0001;
constexpr std::uint16_t kGbl = 0x0020;
constexpr std::uint16_t kPwrbtn = 0x0100;
constexpr std::uint16_t kRtc = 0x0400;
constexpr std::uint16_t kRsm = 0x8000;
constexpr std::uint16_t kEvents = kTmr | kGbl | kPwrbtn | kRtc;

constexpr std::uint16_t kSciEn = 0x0001;
constexpr std::uint16_t kPmcntrlStored =
    0x1C03;                                // SCI_EN, BRLD_EN_BM, SUS_TYP; GBL_RLS and SUS_EN read as zero
constexpr std::uint8_t kSusEnHigh = 0x20;  // SUS_EN in the upper byte
constexpr unsigned kSusTypShift = 10;

constexpr std::uint8_t kAcpiEnable = 0xF1;
constexpr std::uint8_t kAcpiDisable = 0xF0;

constexpr std::uint32_t kTimerMask = 0xFFFFFF;
constexpr std::uint64_t kTogglePeriod = 0x800000;  // TMR_STS is set whenever bit 23 changes

std::uint16_t with_byte(std::uint16_t word, unsigned offset, std::uint8_t value) {
  const unsigned shift = 8 * (offset & 1);
  return static_cast<std::uint16_t>((word & ~(0xFFU << shift)) | unsigned{value} << shift);
}

std::uint8_t byte_of(std::uint32_t value, unsigned index) {
  return static_cast<std::uint8_t>(value >> (8 * index));
}

std::uint64_t toggle_after(std::uint64_t ticks) { return (ticks / kTogglePeriod + 1) * kTogglePeriod; }

}  // namespace

Piix4Pm::Piix4Pm(TimerQueue& timers, Bus& ports, IrqLine sci, std::function<void(SleepState)> request_sleep)
    : PciFunction({.vendor = 0x8086, .device = 0x7113, .class_code = 0x068000, .revision = 3}),
      ports_(ports),
      sci_(sci),
      request_sleep_(std::move(request_sleep)),
      clock_(timers.clock()),
      overflow_timer_(timers,
                      [this] {
                        notice_overflow();
                        update_sci();
                      }),
      apm_([this](unsigned offset) { return (offset & 1) == 0 ? state_.APMC : state_.APMS; },
           [this](unsigned offset, std::uint8_t value) { write_apm(offset & 1, value); }),
      gpe_([this](unsigned offset) { return state_.GPE0[offset % kGpeLength]; },
           [this](unsigned offset, std::uint8_t value) { write_gpe(offset % kGpeLength, value); }),
      smbus_ports_([this](unsigned offset) { return smbus_.read(offset); },
                   [this](unsigned offset, std::uint8_t value) { smbus_.write(offset, value); }) {
  set_register(kPciStatus, 2, 0x0280, 0);  // DEVSEL# timing medium, fast back-to-back
  set_interrupt_pin(1);
  for (unsigned offset = 0x40; offset < 0x100; ++offset) {
    set_register(offset, 1, 0, 0xFF);
  }
  set_register(kPmbase, 4, 0x00000001, 0xFFC0);
  set_register(kDevactb, 4, kApmcEn, ~kApmcEn);
  set_register(0x5F, 1, 0x10, 0xFF);  // what QEMU's `pc` says of decoded devices (DEVRESC, DEVRESE)
  set_register(0x63, 1, 0x60, 0xFF);
  set_register(kSmbbase, 4, 0x0000B101, 0xFFF0);
  set_register(kSmbhstcfg, 1, 0x09, 0xFF);
  state_.next_toggle = toggle_after(timer_ticks());
  update_windows();
}

Piix4Pm::~Piix4Pm() {
  place(pm_window_, std::nullopt);
  place(smbus_window_, std::nullopt);
}

// ---- the PM range

std::uint64_t Piix4Pm::timer_ticks() const { return ticks_in(clock_.now(), kTimerHertz); }

std::uint64_t Piix4Pm::read(std::uint64_t offset, unsigned width) {
  notice_overflow();
  update_sci();
  const auto timer = static_cast<std::uint32_t>(timer_ticks()) & kTimerMask;
  std::uint64_t value = 0;
  for (unsigned i = 0; i < width; ++i) {
    value |= std::uint64_t{pm_byte(static_cast<unsigned>(offset) + i, timer)} << (8 * i);
  }
  return value;
}

void Piix4Pm::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  notice_overflow();
  for (unsigned i = 0; i < width; ++i) {
    write_pm_byte(static_cast<unsigned>(offset) + i, byte_of(static_cast<std::uint32_t>(value), i));
  }
  update_sci();
}

std::uint8_t Piix4Pm::pm_byte(unsigned offset, std::uint32_t timer) const {
  switch (offset) {
    case kPmsts:
    case kPmsts + 1: return byte_of(state_.PMSTS, offset - kPmsts);
    case kPmen:
    case kPmen + 1: return byte_of(state_.PMEN, offset - kPmen);
    case kPmcntrl:
    case kPmcntrl + 1: return byte_of(state_.PMCNTRL, offset - kPmcntrl);
    case kPmtmr:
    case kPmtmr + 1:
    case kPmtmr + 2:
    case kPmtmr + 3: return byte_of(timer, offset - kPmtmr);
    default:
      log_once(LogLevel::kDebug, fmt::format("piix4-pm read {}", offset),
               fmt::format("piix4-pm: read of register {:#x}, which is not modelled", offset));
      return 0xFF;
  }
}

void Piix4Pm::write_pm_byte(unsigned offset, std::uint8_t value) {
  switch (offset) {
    case kPmsts:
    case kPmsts + 1:
      state_.PMSTS = static_cast<std::uint16_t>(state_.PMSTS & ~(unsigned{value} << (8 * offset)));
      break;
    case kPmen:
    case kPmen + 1: state_.PMEN = with_byte(state_.PMEN, offset, value) & kEvents; break;
    case kPmcntrl: state_.PMCNTRL = with_byte(state_.PMCNTRL, offset, value) & kPmcntrlStored; break;
    case kPmcntrl + 1: {
      state_.PMCNTRL = with_byte(state_.PMCNTRL, offset, value) & kPmcntrlStored;
      if ((value & kSusEnHigh) == 0 || !request_sleep_) {
        break;
      }
      switch (state_.PMCNTRL >> kSusTypShift) {
        case 0: request_sleep_(SleepState::kS5); break;
        case 1: request_sleep_(SleepState::kS3); break;
        case 2: request_sleep_(SleepState::kS4); break;
        default: break;  // S1 and the clock states: the machine just goes on
      }
      break;
    }
    default:
      log_once(LogLevel::kDebug, fmt::format("piix4-pm write {}", offset),
               fmt::format("piix4-pm: write of register {:#x}, which is not modelled or read-only", offset));
  }
}

// ---- events

// Time is looked at when somebody asks, so several toggles may have passed: they set the bit once.
void Piix4Pm::notice_overflow() {
  const std::uint64_t now = timer_ticks();
  if (now >= state_.next_toggle) {
    state_.PMSTS |= kTmr;
    state_.next_toggle = toggle_after(now);
  }
}

void Piix4Pm::update_sci() {
  const bool pm1 = (state_.PMSTS & state_.PMEN & kEvents) != 0;
  const bool gpe = ((state_.GPE0[0] & state_.GPE0[2]) | (state_.GPE0[1] & state_.GPE0[3])) != 0;
  sci_.set(pm1 || gpe);
  // The timer is needed only where the next toggle changes the SCI.
  if ((state_.PMEN & kTmr) != 0 && (state_.PMSTS & kTmr) == 0) {
    overflow_timer_.arm(time_of_tick(state_.next_toggle, kTimerHertz));
  } else {
    overflow_timer_.cancel();
  }
}

void Piix4Pm::raise(std::uint16_t status) {
  state_.PMSTS |= status;
  update_sci();
}

void Piix4Pm::announce_serial_ports(bool first, bool second) {
  set_register(0x67, 1, (first ? 0x08U : 0U) | (second ? 0x90U : 0U), 0xFF);
}

void Piix4Pm::power_button() { raise(kPwrbtn); }

void Piix4Pm::rtc_alarm() { raise(kRtc); }

bool Piix4Pm::acpi_enabled() const { return (state_.PMCNTRL & kSciEn) != 0; }

void Piix4Pm::write_gpe(unsigned offset, std::uint8_t value) {
  auto& byte = state_.GPE0[offset];
  byte = offset < kGpeLength / 2 ? static_cast<std::uint8_t>(byte & ~value) : value;
  update_sci();
}

// On a real board the write enters SMM, whose code sets SCI_EN; here the chip does it at once.
void Piix4Pm::write_apm(unsigned offset, std::uint8_t value) {
  if (offset != 0) {
    state_.APMS = value;
    return;
  }
  state_.APMC = value;
  if (value == kAcpiEnable) {
    state_.PMCNTRL |= kSciEn;
  } else if (value == kAcpiDisable) {
    state_.PMCNTRL = static_cast<std::uint16_t>(state_.PMCNTRL & ~kSciEn);
  }
}

// ---- the ranges' places

void Piix4Pm::config_written(unsigned, unsigned) { update_windows(); }

void Piix4Pm::update_windows() {
  const auto base = [&](unsigned offset, std::uint32_t mask, bool enabled) -> std::optional<std::uint64_t> {
    const std::uint32_t address = config_read(offset, 4) & mask;
    return enabled && address != 0 ? std::optional<std::uint64_t>(address) : std::nullopt;
  };
  place(pm_window_, base(kPmbase, 0xFFC0, (config_read(kPmregmisc, 1) & kPmiose) != 0));
  place(smbus_window_, base(kSmbbase, 0xFFF0, (config_read(kSmbhstcfg, 1) & kSmbHstEn) != 0));
}

// A place somebody else has is tried again at the next configuration write.
void Piix4Pm::place(Window& window, std::optional<std::uint64_t> base) {
  if (window.base == base) {
    return;
  }
  if (window.base) {
    ports_.unmap(window.handler);
    window.base.reset();
  }
  if (base) {
    if (auto mapped = ports_.map({.base = *base, .length = window.length}, window.handler, window.name);
        mapped) {
      window.base = base;
    } else {
      log_once(LogLevel::kWarning, fmt::format("{} {}", window.name, *base), mapped.error().message);
    }
  }
}

// ---- reset and saved state

// The PM timer counts on: it is guest time, not a register.
void Piix4Pm::reset() {
  state_ = {};
  state_.next_toggle = toggle_after(timer_ticks());
  smbus_.reset();
  reset_config();
  update_windows();
  update_sci();
}

void Piix4Pm::save(StateWriter& writer) const {
  State state = state_;
  state.pci = config();
  state.smbus = smbus_.state();
  writer.put(state);
}

Result<void> Piix4Pm::load(const StateReader& reader) {
  State state;
  if (auto done = reader.get(state); !done) {
    return std::unexpected(done.error().within(id()));
  }
  load_config(state.pci);
  smbus_.adopt(state.smbus);
  state_ = state;
  state_.PMSTS &= kEvents | kRsm;
  state_.PMEN &= kEvents;
  state_.PMCNTRL &= kPmcntrlStored;
  // No toggle can be further off than the next one.
  state_.next_toggle = std::min(state.next_toggle, toggle_after(timer_ticks()));
  update_windows();
  update_sci();
  return {};
}

}  // namespace whistler
