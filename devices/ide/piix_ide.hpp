// The IDE function of the PIIX3 or the PIIX4.
// Models: PCI function 8086:7010 or 8086:7111 with BAR4 (bus master), the IDETIM registers, the PIIX4's Ultra
// DMA registers, two channels of two drives each (AtaDisk, AtapiCdrom), legacy interrupts. Missing: timing
// (the timing registers are stored only: transfers take the time the host takes). Its decode enable bits and
// the command register's I/O bit do not hide the legacy ports: as on QEMU's `pc`, where software drives them
// without set-up. Documentation: Intel 82371FB/82371SB (PIIX, PIIX3) datasheet, order number 290550,
// sections 2.3 (IDE configuration registers) and 2.7 (bus master registers); Intel 82371AB (PIIX4) datasheet,
// order number 290562, chapter 5.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "devices/core/device.hpp"
#include "devices/core/guest_memory.hpp"
#include "devices/ide/drive_config.hpp"
#include "devices/ide/ide_channel.hpp"
#include "devices/pci/pci_function.hpp"

namespace whistler {

/// Which chip the function belongs to. They differ in what drivers know them by, and in that a PIIX4 can be
/// set to Ultra DMA/33: a system installed on one may not start on the other.
enum class PiixIdeModel : std::uint8_t { kPiix3, kPiix4 };

/// Under the machine lock. Drain before reset() and before destruction: requests in flight point into guest
/// memory.
class PiixIde final : public Device, public PciFunction, private IoHandler {
 public:
  static constexpr unsigned kChannels = 2;
  /// By channel and unit; an absent drive is nullopt. A disk without a block device counts as absent.
  using Drives = std::array<IdeChannel::Drives, kChannels>;

  /// `memory` and the block devices must outlive the function. `irq14` and `irq15` are the legacy lines of
  /// the primary and the secondary channel.
  PiixIde(const GuestMemory& memory, IrqLine irq14, IrqLine irq15, const Drives& drives,
          PiixIdeModel model = PiixIdeModel::kPiix3);

  /// Offsets 0..7: the data register (offset 0, up to 4 bytes wide) and byte registers; to be mapped at 0x1F0
  /// / 0x170 with length 8 and width 4.
  [[nodiscard]] IoHandler& command_block(unsigned channel) { return channels_[channel]->command_block(); }
  /// Offset 0: alternate status / device control; to be mapped at 0x3F6 / 0x376 with length 1 and width 1.
  [[nodiscard]] IoHandler& control_block(unsigned channel) { return channels_[channel]->control_block(); }

  /// The CD-ROM drive there, for medium changes; null if there is none.
  [[nodiscard]] AtapiCdrom* cdrom(unsigned channel, unsigned unit) { return channels_[channel]->cdrom(unit); }

  [[nodiscard]] std::string_view id() const override { return "piix-ide"; }
  void reset() override;
  void save(StateWriter& writer) const override;
  [[nodiscard]] Result<void> load(const StateReader& reader) override;
  [[nodiscard]] Task<void> drain() override;

 protected:
  void config_written(unsigned offset, unsigned width) override;

 private:
  struct State {
    Config pci;
    std::array<IdeChannel::State, kChannels> channels;
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("pci", self.pci);
      visit("channels", self.channels);
    }
  };

  // BAR4: eight bytes a channel.
  [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

  void update_bus_mastering();

  std::array<std::unique_ptr<IdeChannel>, kChannels> channels_;
};

}  // namespace whistler
