// An ATA hard disk.
// Models: IDENTIFY DEVICE; READ and WRITE SECTORS, MULTIPLE, DMA with their EXT and FUA forms; READ VERIFY;
// FLUSH CACHE; SET FEATURES; SET MULTIPLE; READ NATIVE MAX and SET MAX ADDRESS; INITIALIZE DEVICE PARAMETERS,
// RECALIBRATE, SEEK; power management; SMART (status, data, thresholds, empty logs, off-line tests that pass
// at once); DATA SET MANAGEMENT (trim); NOP; READ and WRITE BUFFER. Addresses by CHS, 28-bit and 48-bit LBA.
// Host errors become UNC (reads) or ABRT. Missing: the Security, CFA, Streaming, Media Card and SET MAX
// password features (aborted, and not announced); SLEEP can be left without a reset; the standby timer.
// Documentation: T13/1410D (ATA/ATAPI-6); ACS-2 (T13/2015-D) for DATA SET MANAGEMENT.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "devices/ide/ide_drive.hpp"

namespace whistler {

/// Under the machine lock.
class AtaDisk final : public IdeDrive {
 public:
  static constexpr std::uint32_t kSectorBytes = 512;

  /// What the command in progress does with its data.
  enum class Operation : std::uint8_t { kNone, kRead, kWrite, kTrim, kWriteBuffer };

  struct State {
    IdeTransfer transfer;
    Operation operation = Operation::kNone;
    bool extended = false;  ///< the command has 48-bit registers
    bool fua = false;
    std::uint64_t lba = 0;            ///< next sector of the command
    std::uint32_t remaining = 0;      ///< sectors of the command
    std::uint32_t block_sectors = 1;  ///< sectors in a DRQ block
    std::uint8_t multiple = 16;       ///< SET MULTIPLE MODE; 0 when off
    std::uint16_t cylinders = 0;      ///< current translation
    std::uint8_t heads = 0;
    std::uint8_t sectors = 0;
    std::uint8_t transfer_mode = 0x45;  ///< as SET FEATURES 03h takes it
    bool write_cache = true;
    bool look_ahead = true;
    bool smart = true;
    bool smart_autosave = true;
    std::uint8_t power_mode = 0xFF;  ///< what CHECK POWER MODE gives
    std::uint64_t max_sectors = 0;   ///< SET MAX ADDRESS; the size unless changed
    std::array<std::uint8_t, kSectorBytes> sector_buffer{};
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("transfer", self.transfer);
      visit("operation", self.operation);
      visit("extended", self.extended);
      visit("fua", self.fua);
      visit("lba", self.lba);
      visit("remaining", self.remaining);
      visit("block_sectors", self.block_sectors);
      visit("multiple", self.multiple);
      visit("cylinders", self.cylinders);
      visit("heads", self.heads);
      visit("sectors", self.sectors);
      visit("transfer_mode", self.transfer_mode);
      visit("write_cache", self.write_cache);
      visit("look_ahead", self.look_ahead);
      visit("smart", self.smart);
      visit("smart_autosave", self.smart_autosave);
      visit("power_mode", self.power_mode);
      visit("max_sectors", self.max_sectors);
      visit("sector_buffer", self.sector_buffer);
    }
  };

  /// `config.block` is not null.
  AtaDisk(const IdeDriveConfig& config, IdeRegisters& registers, IdeHost& host);

  void execute(std::uint8_t command) override;
  void device_reset() override {}  // not a packet device: the command is not known, and not taken while busy
  void diagnostic() override;
  void reset() override;

  [[nodiscard]] State state() const;
  [[nodiscard]] Result<void> check(const State& state) const;
  void load(const State& state);

 private:
  /// What a command says about where and how much.
  struct Address {
    std::uint64_t lba = 0;
    std::uint32_t count = 0;
    bool valid = false;  ///< within the disk
  };

  // ata_disk.cpp: decoding, and commands without data
  bool execute_transfer(std::uint8_t command);
  bool execute_mode(std::uint8_t command);
  [[nodiscard]] Address address(bool extended) const;
  [[nodiscard]] std::uint64_t lba_register(bool extended) const;
  void show_lba(std::uint64_t lba);
  void set_features();
  void set_multiple();
  void set_parameters();
  void set_max(bool extended);
  void show_native_max(bool extended);
  void idle_at(std::uint8_t power_mode);

  // ata_disk_transfer.cpp
  void begin_read(bool extended, std::uint32_t block_sectors);
  void begin_write(bool extended, std::uint32_t block_sectors, bool fua);
  void begin_dma(bool extended, Operation operation, bool fua);
  void begin_verify(bool extended);
  void begin_trim();
  void begin_flush();
  bool begin(bool extended, Operation operation, bool fua);
  void send_page(std::span<const std::uint8_t> page);
  void next_read_block();
  void next_write_block();
  void advance(std::uint32_t sectors);
  void pio_block_done() override;
  void dma_go() override;
  void fail_at(std::uint64_t lba, std::uint8_t error);
  void end_dma(DmaPlan plan, std::uint8_t error);
  void note_host_error(std::string_view what, const Error& error) const;
  Task<void> read_ahead(std::vector<std::uint8_t> buffer);
  Task<void> write_block(std::vector<std::uint8_t> buffer);
  Task<void> dma(DmaPlan plan);
  Task<void> trim(DmaPlan plan);
  Task<void> verify();
  Task<void> flush();

  // ata_identify.cpp
  [[nodiscard]] std::array<std::uint8_t, kSectorBytes> identify() const;

  // ata_smart.cpp
  void execute_smart();
  [[nodiscard]] static std::array<std::uint8_t, kSectorBytes> smart_data(bool thresholds);

  BlockDevice& block_;
  std::string model_;
  std::string serial_;
  std::string firmware_;
  IdeGeometry geometry_;
  bool read_only_;
  bool write_cache_default_;
  std::uint64_t total_sectors_;
  State s_;                          // s_.transfer is unused: the base class has it
  std::vector<iovec> spare_pieces_;  // lent to the next DMA
};

}  // namespace whistler
