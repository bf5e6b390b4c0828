// Intel 82371SB (PIIX3), function 0: the PCI to ISA bridge at 00:01.0.
// Models: PIRQRC[A:D] routing of the four PCI interrupts to the ISA ones, with sharing; the reset control
// register (0xCF9); the edge/level control registers (0x4D0, 0x4D1) as storage; every other configuration
// register from 0x40 up as storage with the power-on values of QEMU's `pc`. Missing: X-bus chip selects
// (XBCS), top of memory (TOM), MIRQ and programmable chip select, DMA type F, SMI generation. The ELCR has no
// effect here: the interrupt controllers are KVM's, which have their own. Documentation: Intel
// 82371FB/82371SB datasheet (290550-002): 2.2 (function 0), 2.5.6 (ELCR), 2.5.7.2 (RC).
#pragma once

#include <array>
#include <functional>

#include "devices/chipset/byte_ports.hpp"
#include "devices/core/device.hpp"
#include "devices/pci/pci_function.hpp"

namespace whistler {

/// What a write to the reset control register asks for.
enum class ResetKind : std::uint8_t {
  kSoft,  ///< SRST clear: INIT to the processors
  kHard,  ///< SRST set: CPURST, PCIRST# and RSTDRV; the whole machine
};

class Piix3Isa final : public PciFunction, public Device {
 public:
  static constexpr unsigned kPirqs = 4;
  static constexpr unsigned kIsaIrqs = 16;

  /// `isa_irqs` has inputs 0 to 15 and must outlive the chip. `request_reset` is called from within the
  /// guest's write: it should note the wish and act on it later.
  Piix3Isa(IrqSink& isa_irqs, std::function<void(ResetKind)> request_reset);

  /// Inputs 0 to 3: PIRQA to PIRQD, active high here. Others are ignored.
  [[nodiscard]] IrqSink& pirq_inputs() { return pirq_inputs_; }
  /// Inputs 0 to 15: the interrupt lines of ISA devices, ORed with the PIRQs routed to them. Others are
  /// ignored.
  [[nodiscard]] IrqSink& isa_inputs() { return isa_inputs_; }
  /// RC, one byte, at 0xCF9.
  [[nodiscard]] IoHandler& reset_control() { return reset_control_; }
  /// ELCR1 and ELCR2, two bytes, at 0x4D0. Only for a board without KVM's interrupt controllers, which own
  /// these ports.
  [[nodiscard]] IoHandler& elcr() { return elcr_; }

  [[nodiscard]] std::string_view id() const override { return "piix3-isa"; }
  void reset() override;
  void save(StateWriter& writer) const override;
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  struct State {
    Config pci;
    std::uint8_t RC = 0;  // SRST only: RCPU never reads as set
    std::array<std::uint8_t, 2> ELCR{};
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("pci", self.pci);
      visit("RC", self.RC);
      visit("ELCR", self.ELCR);
    }
  };

  /// The wires that come in; a level is kept as a bit.
  class Inputs final : public IrqSink {
   public:
    Inputs(Piix3Isa& chip, unsigned count) : chip_(chip), count_(count) {}
    void set_irq(unsigned input, bool level) override;
    [[nodiscard]] bool level(unsigned input) const { return ((levels_ >> input) & 1) != 0; }
    [[nodiscard]] unsigned levels() const { return levels_; }

   private:
    Piix3Isa& chip_;
    unsigned count_;
    unsigned levels_ = 0;
  };

  void config_written(unsigned offset, unsigned width) override;
  void update_irqs();
  void write_reset_control(std::uint8_t value);
  void write_elcr(unsigned index, std::uint8_t value);

  IrqSink& isa_irqs_;
  std::function<void(ResetKind)> request_reset_;
  Inputs pirq_inputs_{*this, kPirqs};
  Inputs isa_inputs_{*this, kIsaIrqs};
  BytePorts reset_control_;
  BytePorts elcr_;
  State state_;          // `pci` in it is filled in only to save
  unsigned driven_ = 0;  // what `isa_irqs_` was told last
};

}  // namespace whistler
