// Intel 82371AB (PIIX4), function 3: power management and SMBus, 00:01.3.
// Models: the PM1 event and control registers, the 24-bit PM timer at 3.579545 MHz with its overflow event,
// the SCI, sleep requests (SLP_TYP, SLP_EN), the power button and RTC events; the APM control and status
// ports with ACPI enable (0xF1) and disable (0xF0); a general purpose event block of QEMU's shape (16 status
// bits, 16 enable bits); the SMBus host controller with an empty bus; PM and SMBus ranges that move with
// PMBASE, PMREGMISC, SMBBASE and SMBHSTCFG. Missing: SMI and system management mode (DEVACTB's APMC_EN reads
// as set, so firmware takes its SMM set-up for done), PCNTRL, P_LVL2/3, GPSTS/GPEN, GLB and DEV registers
// (they read as all ones), GPI/GPO, device monitors, BIOS_RLS/GBL_RLS handshake, wake-up from S3. Like QEMU
// the SCI does not ask for SCI_EN: without SMM there is nowhere else for an enabled event to go.
// Documentation: Intel 82371AB datasheet (290562-001), chapter 7; ACPI 1.0b, 4.7.
#pragma once

#include <functional>
#include <optional>

#include "base/timer_queue.hpp"
#include "devices/chipset/byte_ports.hpp"
#include "devices/chipset/piix4_smbus.hpp"
#include "devices/core/bus.hpp"
#include "devices/core/device.hpp"
#include "devices/pci/pci_function.hpp"

namespace whistler {

/// What the guest asked for by setting SLP_EN.
enum class SleepState : std::uint8_t {
  kS3,  ///< suspend to RAM (SLP_TYP 1)
  kS4,  ///< suspend to disk, then off (SLP_TYP 2, as QEMU's `pc` defines it)
  kS5,  ///< soft off (SLP_TYP 0)
};

class Piix4Pm final : public PciFunction, public Device, private IoHandler {
 public:
  static constexpr std::uint64_t kTimerHertz = 3'579'545;
  static constexpr unsigned kGpeLength = 4;

  /// `timers` and `ports` must outlive the chip, which maps its PM and SMBus ranges on `ports` itself as the
  /// guest places them. `sci` is level-triggered. `request_sleep` is called from within the guest's write: it
  /// should note the wish and act on it later.
  Piix4Pm(TimerQueue& timers, Bus& ports, IrqLine sci, std::function<void(SleepState)> request_sleep);
  ~Piix4Pm() override;

  /// APMC and APMS, two bytes, at 0xB2.
  [[nodiscard]] IoHandler& apm() { return apm_; }
  /// GPE0: status (2 bytes, written ones clear), enable (2 bytes); at 0xAFE0 on QEMU's `pc`.
  [[nodiscard]] IoHandler& gpe() { return gpe_; }

  /// Says in DEVRESF's place, as QEMU's `pc` does, which serial ports the board has. At set-up only.
  void announce_serial_ports(bool first, bool second);
  /// The power button was pressed: PWRBTN_STS, and an SCI if the guest wants one.
  void power_button();
  /// The RTC's alarm interrupt went up: RTC_STS.
  void rtc_alarm();
  /// Whether the guest's ACPI has taken over (SCI_EN): only then will it act on the power button.
  [[nodiscard]] bool acpi_enabled() const;

  [[nodiscard]] std::string_view id() const override { return "piix4-pm"; }
  void reset() override;
  void save(StateWriter& writer) const override;
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  struct State {
    Config pci;
    std::uint16_t PMSTS = 0;
    std::uint16_t PMEN = 0;
    std::uint16_t PMCNTRL = 0;
    std::uint64_t next_toggle =
        0;  // PM timer tick, counted from time 0, at which bit 23 changes next unnoticed
    std::uint8_t APMC = 0;
    std::uint8_t APMS = 0;
    std::array<std::uint8_t, kGpeLength> GPE0{};
    Piix4Smbus::State smbus;
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("pci", self.pci);
      visit("PMSTS", self.PMSTS);
      visit("PMEN", self.PMEN);
      visit("PMCNTRL", self.PMCNTRL);
      visit("next_toggle", self.next_toggle);
      visit("APMC", self.APMC);
      visit("APMS", self.APMS);
      visit("GPE0", self.GPE0);
      visit("smbus", self.smbus);
    }
  };

  /// A range of ports that the guest moves.
  struct Window {
    IoHandler& handler;
    unsigned length;
    std::string_view name;
    std::optional<std::uint64_t> base = std::nullopt;  // where it is mapped now
  };

  // The PM range.
  [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;
  [[nodiscard]] std::uint8_t pm_byte(unsigned offset, std::uint32_t timer) const;
  void write_pm_byte(unsigned offset, std::uint8_t value);

  void write_apm(unsigned offset, std::uint8_t value);
  void write_gpe(unsigned offset, std::uint8_t value);

  [[nodiscard]] std::uint64_t timer_ticks() const;
  void raise(std::uint16_t status);
  void notice_overflow();
  void update_sci();
  void config_written(unsigned offset, unsigned width) override;
  void update_windows();
  void place(Window& window, std::optional<std::uint64_t> base);

  Bus& ports_;
  IrqLine sci_;
  std::function<void(SleepState)> request_sleep_;
  const Clock& clock_;
  Timer overflow_timer_;
  Piix4Smbus smbus_;
  BytePorts apm_;
  BytePorts gpe_;
  BytePorts smbus_ports_;
  Window pm_window_{.handler = *this, .length = 64, .name = "piix4-pm"};
  Window smbus_window_{.handler = smbus_ports_, .length = Piix4Smbus::kLength, .name = "piix4-smbus"};
  State state_;  // `pci` and `smbus` in it are filled in only to save
};

}  // namespace whistler
