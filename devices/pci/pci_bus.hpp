// A PCI bus and configuration mechanism #1.
// Models: CONFIG_ADDRESS (0xCF8, 32-bit only) and CONFIG_DATA (0xCFC..0xCFF), bus 0, BAR decoding, INTx
// swizzling to four PIRQ wires as QEMU's `pc` and the PIIX boards have it: wire = (slot + pin - 2) mod 4.
// Bits 1 and 0 of CONFIG_ADDRESS are kept and select the byte for an access at 0xCFC, as on QEMU; the
// specification has them zero. Missing: bridges and buses above 0, special cycles. Documentation: PCI Local
// Bus Specification 2.2, section 3.2.2.3.2; Intel 82441FX datasheet (290549), section 3.1.
#pragma once

#include <array>
#include <memory>

#include "devices/core/bus.hpp"
#include "devices/core/device.hpp"
#include "devices/core/irq_line.hpp"
#include "devices/pci/pci_function.hpp"

namespace whistler {

/// The port pair at 0xCF8 (offset 0..7) and the functions behind it. Under the machine lock.
class PciBus final : public Device, public IoHandler {
 public:
  /// BARs are decoded on `ports` and `memory`, framebuffers and ROMs through `mapper`; PIRQ wires A to D are
  /// inputs 0 to 3 of `pirq`. All must outlive the bus.
  PciBus(Bus& ports, Bus& memory, MemoryMapper& mapper, IrqSink& pirq);

  /// Plugs `function`, which must outlive the bus, into `slot` (0..31), `number` (0..7).
  [[nodiscard]] Result<void> attach(unsigned slot, unsigned number, PciFunction& function,
                                    std::string_view owner);

  [[nodiscard]] std::string_view id() const override { return "pci"; }
  void reset() override;
  void save(StateWriter& writer) const override;
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

  [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

  /// Configuration access without the ports: for firmware set-up and tests. All ones where nothing is
  /// plugged.
  [[nodiscard]] std::uint32_t config_read(unsigned slot, unsigned number, unsigned offset,
                                          unsigned width) const;
  void config_write(unsigned slot, unsigned number, unsigned offset, unsigned width, std::uint32_t value);

 private:
  struct State {
    std::uint32_t CONFIG_ADDRESS = 0;
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) { visit("CONFIG_ADDRESS", self.CONFIG_ADDRESS); }
  };
  struct Socket {
    PciFunction* function = nullptr;
    std::string owner;
    std::array<std::optional<std::uint64_t>, 7> decoded;  // where each BAR is mapped now
  };

  [[nodiscard]] PciFunction* addressed() const;
  /// The register a data access at `offset` is to.
  [[nodiscard]] unsigned register_at(std::uint64_t offset) const;
  void remap();
  void place(Socket& socket, unsigned index, const PciBar& bar, std::uint64_t address);

  Bus& ports_;
  Bus& memory_;
  MemoryMapper& mapper_;
  std::array<std::unique_ptr<IrqOr>, 4> pirq_;
  std::array<Socket, 256> sockets_;
  State state_;
};

}  // namespace whistler
