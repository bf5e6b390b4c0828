// The real-time clock of the PC and its CMOS memory.
// Models: Motorola MC146818A with 128 bytes, as an index and a data port: time, date, century (0x32, and
// 0x37 as its PS/2 alias), BCD and binary, 12 and 24 hours, SET, divider reset, update-in-progress, alarm
// with don't-care codes, update-ended and periodic interrupts at every rate, optional reinjection of lost
// periodic ticks.
// Missing: square wave output, daylight saving (bit DSE is stored), the second bank at 0x72. Time bases
// other than 32768 Hz (DV 0 and 1) run as that one does. The day of the week follows from the date.
// Differs: PF is raised only while PIE is set, and the periodic phase starts when PIE or the rate is
// written, not from the divider chain: QEMU's behaviour, which its tests pin down.
// Documentation: Motorola MC146818A datasheet (1984); Intel 82371SB (PIIX3), section 2.5.5, for the ports
// and the NMI mask.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "base/timer_queue.hpp"
#include "devices/core/device.hpp"
#include "devices/core/io_handler.hpp"
#include "devices/core/irq_line.hpp"

namespace whistler {

/// Offset 0 is the index port (write only; bit 7 is the NMI mask), offset 1 the data port. One byte wide.
class RtcMc146818 final : public Device, public IoHandler {
 public:
  /// What happens to periodic interrupts that come due while register C has not been read since the last one.
  enum class LostTicks : std::uint8_t {
    kDiscard,   ///< they are lost, as in hardware
    kReinject,  ///< they are made up for at up to four times the rate: for Windows HALs that count them
  };
  struct Config {
    std::string id = "rtc";
    /// What the clock shows at guest time 0, in seconds since 1970-01-01 00:00:00 of whatever time zone the
    /// guest is to see: the owner decides between UTC and local time.
    std::int64_t start_seconds = 0;
    LostTicks lost_ticks = LostTicks::kDiscard;
  };

  /// `timers` must outlive the chip. `irq` is IRQ 8 of a PC.
  RtcMc146818(TimerQueue& timers, IrqLine irq, Config config);

  [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

  /// For the firmware's tables: sets and gets CMOS bytes without side effects. `index` 0x0E..0x7F; the
  /// clock's own registers and the century bytes are left alone.
  void set_cmos(unsigned index, std::uint8_t value);
  [[nodiscard]] std::uint8_t cmos(unsigned index) const { return state_.ram[index & 0x7F]; }

  /// What the clock shows, and sets it, in seconds since 1970 as Config::start_seconds.
  [[nodiscard]] std::int64_t seconds() const;
  void set_seconds(std::int64_t seconds);
  /// `told` is called when the guest has set the clock, with how far that is, in seconds, from where it would
  /// be if nobody ever had.
  void watch_time(std::function<void(std::int64_t offset)> told) { told_ = std::move(told); }

  /// Bit 7 of the index port: the guest wants no NMI.
  [[nodiscard]] bool nmi_masked() const { return state_.nmi_masked; }

  [[nodiscard]] std::string_view id() const override { return config_.id; }
  /// Clears interrupt enables, flags and the lost ticks. Time, registers A and D and the CMOS bytes are
  /// backed by the battery and stay.
  void reset() override;
  void save(StateWriter& writer) const override { writer.put(state_); }
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  struct State {
    std::uint8_t index = 0;
    bool nmi_masked = false;
    std::array<std::uint8_t, 128>
        ram{};  ///< clock registers hold the time while it stands, else the last one shown
    std::int64_t base_seconds = 0;       ///< the time shown from base_time on, while the clock runs
    Nanoseconds base_time = 0;           ///< a moment at which a second began: the phase of the divider
    std::int64_t settled_seconds = 0;    ///< updates up to this second have had their effect on UF and AF
    Nanoseconds periodic_base = 0;       ///< when periodic ticks began to be counted
    std::uint64_t periodic_settled = 0;  ///< ticks since then that have had their effect on PF
    std::uint64_t lost_ticks = 0;        ///< periodic interrupts owed to the guest
    Nanoseconds reinject_time = 0;       ///< the next of those comes no earlier
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("index", self.index);
      visit("nmi_masked", self.nmi_masked);
      visit("ram", self.ram);
      visit("base_seconds", self.base_seconds);
      visit("base_time", self.base_time);
      visit("settled_seconds", self.settled_seconds);
      visit("periodic_base", self.periodic_base);
      visit("periodic_settled", self.periodic_settled);
      visit("lost_ticks", self.lost_ticks);
      visit("reinject_time", self.reinject_time);
    }
  };

  [[nodiscard]] Nanoseconds now() const { return timers_.clock().now(); }
  [[nodiscard]] bool running() const;
  [[nodiscard]] bool update_in_progress() const;
  [[nodiscard]] bool interrupting() const;
  [[nodiscard]] std::uint64_t period() const;
  [[nodiscard]] std::uint64_t periodic_ticks() const;
  [[nodiscard]] Nanoseconds phase() const;
  [[nodiscard]] std::int64_t shown_seconds() const;
  [[nodiscard]] std::optional<std::int64_t> next_alarm(std::int64_t after) const;
  [[nodiscard]] std::optional<Nanoseconds> next_event() const;

  [[nodiscard]] std::uint8_t read_register(std::uint8_t index);
  void write_register(std::uint8_t index, std::uint8_t value);
  void write_time(std::uint8_t index, std::uint8_t value);
  void write_a(std::uint8_t value);
  void write_b(std::uint8_t value);
  [[nodiscard]] std::uint8_t take_c();

  /// After the guest has set the time.
  void tell_time();
  void stop_clock();
  void start_clock(Nanoseconds phase);
  void settle();
  void settle_periodic();
  void restart_periodic(std::uint64_t old_period);
  void update_irq();

  std::function<void(std::int64_t)> told_;
  std::int64_t told_offset_ = 0;
  TimerQueue& timers_;
  IrqLine irq_;
  Config config_;
  State state_;
  Timer timer_;
};

}  // namespace whistler
