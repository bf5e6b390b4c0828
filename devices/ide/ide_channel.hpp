// One IDE channel: two drives on a cable, their shared registers and interrupt, and the channel's bus master.
// Models: command block and control block, device selection, absent drives, nIEN, SRST, HOB.
// Missing: nothing known. Absent drives read as on QEMU's `pc`: a channel without drives gives 0 everywhere,
// an absent drive beside a present one has STATUS and ERROR 0. Documentation: T13/1410D (ATA/ATAPI-6),
// chapters 7 and 9.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "devices/core/io_handler.hpp"
#include "devices/ide/ata_disk.hpp"
#include "devices/ide/atapi_cdrom.hpp"
#include "devices/ide/bus_master.hpp"
#include "devices/ide/ide_drive.hpp"

namespace whistler {

/// Under the machine lock.
class IdeChannel final : private IdeHost {
 public:
  static constexpr unsigned kUnits = 2;
  using Drives = std::array<std::optional<IdeDriveConfig>, kUnits>;

  struct UnitState {
    IdeKind kind = IdeKind::kDisk;
    bool present = false;
    IdeRegisters registers;
    AtaDisk::State disk;      ///< of a disk
    AtapiCdrom::State cdrom;  ///< of a CD-ROM drive
    bool operator==(const UnitState&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("kind", self.kind);
      visit("present", self.present);
      visit("registers", self.registers);
      visit("disk", self.disk);
      visit("cdrom", self.cdrom);
    }
  };
  struct State {
    std::uint8_t selected = 0;  ///< unit 0 or 1
    std::uint8_t DEVICE_CONTROL = 0;
    bool intrq = false;  ///< before nIEN
    BusMaster::State bus_master;
    std::array<UnitState, kUnits> units;
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("selected", self.selected);
      visit("DEVICE_CONTROL", self.DEVICE_CONTROL);
      visit("intrq", self.intrq);
      visit("bus_master", self.bus_master);
      visit("units", self.units);
    }
  };

  IdeChannel(const GuestMemory& memory, IrqLine irq, const Drives& drives);

  [[nodiscard]] IoHandler& command_block() { return command_block_; }
  [[nodiscard]] IoHandler& control_block() { return control_block_; }
  [[nodiscard]] BusMaster& bus_master() override { return bus_master_; }
  [[nodiscard]] AtapiCdrom* cdrom(unsigned unit) { return cdroms_[unit].get(); }

  void reset();
  [[nodiscard]] State state() const;
  /// Says what is wrong with `state`; load() takes only what this lets pass.
  [[nodiscard]] Result<void> check(const State& state) const;
  void load(const State& state);
  [[nodiscard]] Task<void> drain();

 private:
  struct CommandBlock final : IoHandler {
    explicit CommandBlock(IdeChannel& owner) : channel(owner) {}
    [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
    void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;
    void read_many(std::uint64_t offset, unsigned width, std::span<std::uint8_t> data) override;
    void write_many(std::uint64_t offset, unsigned width, std::span<const std::uint8_t> data) override;
    IdeChannel& channel;
  };
  struct ControlBlock final : IoHandler {
    explicit ControlBlock(IdeChannel& owner) : channel(owner) {}
    [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
    void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;
    IdeChannel& channel;
  };

  void raise_interrupt() override;
  void set_intrq(bool level);

  [[nodiscard]] IdeDrive* drive(unsigned unit) const;
  [[nodiscard]] bool empty() const { return drive(0) == nullptr && drive(1) == nullptr; }
  [[nodiscard]] std::uint8_t read_register(unsigned offset) const;
  [[nodiscard]] std::uint8_t status() const;
  void write_register(unsigned offset, std::uint8_t value);
  void command(std::uint8_t command);
  void diagnostic();
  void write_control(std::uint8_t value);
  void reset_absent();

  BusMaster bus_master_;
  std::uint8_t selected_ = 0;
  std::uint8_t control_ = 0;
  bool intrq_ = false;
  std::array<IdeRegisters, kUnits> registers_;
  std::array<std::unique_ptr<AtaDisk>, kUnits> disks_;
  std::array<std::unique_ptr<AtapiCdrom>, kUnits> cdroms_;
  CommandBlock command_block_{*this};
  ControlBlock control_block_{*this};
};

}  // namespace whistler
