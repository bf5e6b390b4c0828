// Intel 82441FX (i440FX) PCI and memory controller: the host bridge at 00:00.0.
// Models: identification as on QEMU's `pc` (8086:1237 revision 2), PAM0-PAM6 shadowing of 0xC0000-0xFFFFF,
// SMRAM with D_OPEN, D_LCK and G_SMRAME; every other register from 0x40 up is storage with QEMU's power-on
// values, so that firmware which sizes or tunes DRAM reads back what it wrote. Missing: system management
// mode (G_SMRAME alone opens nothing), DRAM sizing and timing by DRB, DRT and DRAMC, the fixed hole of FDHC,
// error reporting, the turbo counter. Documentation: Intel 440FX PCIset 82441FX datasheet (290549-001),
// chapter 3; PAM is 3.2.18, SMRAM 3.2.26.
#pragma once

#include <array>

#include "devices/core/device.hpp"
#include "devices/pci/pci_function.hpp"

namespace whistler {

/// The memory map, as the host bridge steers it. Implemented by the board; called under the machine lock,
/// only on a change.
class ShadowControl {
 public:
  virtual ~ShadowControl() = default;

  /// Segments are counted from 0: 0 is 0xF0000-0xFFFFF, n from 1 to 12 is the 16 KiB at 0xC0000 + (n - 1) *
  /// 0x4000. A read or write that does not go to DRAM goes to the PCI bus: a ROM there is read, a write is
  /// lost.
  virtual void set_shadow(unsigned segment, bool read_dram, bool write_dram) = 0;

  /// While open, the DRAM behind 0xA0000-0xBFFFF answers there instead of the VGA window.
  virtual void set_smram_open(bool open) = 0;
};

class I440fx final : public PciFunction, public Device {
 public:
  static constexpr unsigned kSegments = 13;

  /// `shadow` must outlive the chip and starts out as after reset: nothing shadowed, SMRAM closed.
  explicit I440fx(ShadowControl& shadow);

  [[nodiscard]] std::string_view id() const override { return "i440fx"; }
  void reset() override;
  void save(StateWriter& writer) const override;
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  struct State {
    Config pci;
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) { visit("pci", self.pci); }
  };

  void config_written(unsigned offset, unsigned width) override;
  void lock_smram();
  void update_map();

  ShadowControl& shadow_;
  std::array<std::uint8_t, kSegments> attributes_{};  // what `shadow_` was told last
  bool smram_open_ = false;                           // likewise
  bool smram_locked_ = false;                         // D_LCK was set since reset
};

}  // namespace whistler
