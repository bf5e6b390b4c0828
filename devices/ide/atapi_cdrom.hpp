// An ATAPI CD/DVD-ROM drive with a data disc of one track.
// Models: the packet protocol by PIO (byte count limits) and DMA; TEST UNIT READY, REQUEST SENSE, INQUIRY,
// START STOP UNIT, PREVENT ALLOW, READ CAPACITY, READ (10), READ (12), SEEK, READ SUBCHANNEL, READ TOC
// (formats 0 to 2), GET CONFIGURATION, GET EVENT STATUS NOTIFICATION (media events, polled), READ DISC
// INFORMATION, READ TRACK INFORMATION, MODE SELECT and SENSE (10), READ DVD STRUCTURE (formats 0, 1, 4), SET
// CD SPEED, MECHANISM STATUS, READ CD and READ CD MSF; tray, lock, unit attention after a change of discs. A
// disc of more than 80 minutes is a DVD. Missing: audio; READ CD without user data, C2 and sub-channels; EDC
// and ECC bytes of raw sectors read as zero; sectors of mode 2. As on QEMU's `pc`, power-on does not raise a
// unit attention. Documentation: SFF-8020i revision 2.6; MMC-3 (T10/1363D); T13/1410D chapter 9.8.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "devices/ide/ide_drive.hpp"

namespace whistler {

/// Under the machine lock.
class AtapiCdrom final : public IdeDrive {
 public:
  static constexpr std::uint32_t kBlockBytes = 2048;
  static constexpr unsigned kPacketBytes = 12;
  using Packet = std::array<std::uint8_t, kPacketBytes>;

  /// What the command in progress does with its data.
  enum class Operation : std::uint8_t { kNone, kPacket, kReply, kRead, kModeSelect };

  struct State {
    IdeTransfer transfer;
    Operation operation = Operation::kNone;
    bool dma = false;              ///< the packet's data goes by DMA
    std::uint32_t byte_limit = 0;  ///< the most a DRQ block holds
    std::uint32_t lba = 0;         ///< next block to be read
    std::uint32_t blocks = 0;      ///< still to be read
    std::uint8_t parts = 0;        ///< of READ CD: what of a sector is sent (byte 9 of the packet)
    std::uint8_t sense_key = 0;
    std::uint8_t asc = 0;
    std::uint8_t ascq = 0;
    bool disc_changed = false;     ///< a unit attention waits
    std::uint8_t media_event = 0;  ///< what the next GET EVENT STATUS NOTIFICATION tells
    bool tray_open = false;
    bool locked = false;
    std::uint8_t transfer_mode = 0x45;  ///< as SET FEATURES 03h takes it
    std::array<std::uint8_t, 8> recovery_page{};
    std::array<std::uint8_t, 16> audio_page{};
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("transfer", self.transfer);
      visit("operation", self.operation);
      visit("dma", self.dma);
      visit("byte_limit", self.byte_limit);
      visit("lba", self.lba);
      visit("blocks", self.blocks);
      visit("parts", self.parts);
      visit("sense_key", self.sense_key);
      visit("asc", self.asc);
      visit("ascq", self.ascq);
      visit("disc_changed", self.disc_changed);
      visit("media_event", self.media_event);
      visit("tray_open", self.tray_open);
      visit("locked", self.locked);
      visit("transfer_mode", self.transfer_mode);
      visit("recovery_page", self.recovery_page);
      visit("audio_page", self.audio_page);
    }
  };

  AtapiCdrom(const IdeDriveConfig& config, IdeRegisters& registers, IdeHost& host);

  /// What the person at the drive does. eject() opens the tray; if the guest has locked it, it is asked to
  /// eject (kBusy is returned) unless `force`. change_disc() puts `disc` into the tray, or takes the disc out
  /// if it is null, and closes it: the old disc is not used any more. kBusy while requests are in flight:
  /// drain first.
  [[nodiscard]] Result<void> eject(bool force);
  [[nodiscard]] Result<void> change_disc(BlockDevice* disc);
  /// The same in steps, for a person who leaves the tray open: what lies in the open tray (null: nothing),
  /// and pushing it in. kInvalid while the tray is closed; kBusy as above.
  [[nodiscard]] Result<void> lay_in_tray(BlockDevice* disc);
  void push_in() { close_tray(); }
  /// Is told whenever the tray has moved, by the person or the guest.
  void watch_tray(std::function<void(bool open)> moved) { tray_moved_ = std::move(moved); }
  [[nodiscard]] BlockDevice* disc() const { return disc_; }
  [[nodiscard]] bool tray_open() const { return s_.tray_open; }
  [[nodiscard]] bool locked() const { return s_.locked; }

  void execute(std::uint8_t command) override;
  void device_reset() override;
  void diagnostic() override;
  void reset() override;

  [[nodiscard]] State state() const;
  [[nodiscard]] Result<void> check(const State& state) const;
  void load(const State& state);

 private:
  using Reply = std::vector<std::uint8_t>;
  struct Sense {
    std::uint8_t key, asc, ascq;
  };

  // atapi_cdrom.cpp: the ATA side, and how packets move data
  void show_signature();
  void set_features();
  [[nodiscard]] std::array<std::uint8_t, 512> identify() const;
  void begin_packet();
  void pio_block_done() override;
  void dma_go() override;
  void packet_done();
  void packet_failed(const Sense& sense);
  void reply(Reply data, std::size_t allocation);
  void begin_read(std::uint32_t lba, std::uint32_t blocks, std::uint8_t parts);
  void begin_data_in();
  void next_burst();
  [[nodiscard]] std::uint32_t sector_bytes() const;
  [[nodiscard]] bool readable(std::uint32_t blocks) const;
  void expand(std::span<const std::uint8_t> data, std::uint32_t lba, std::uint8_t* to) const;
  Task<Result<void>> read_blocks(std::uint32_t blocks, std::vector<std::uint8_t>& to) const;
  Task<void> fill(std::vector<std::uint8_t> buffer, std::size_t position, std::size_t needed);
  Task<void> dma_read(DmaPlan plan);
  void end_dma(DmaPlan plan, const Sense* sense);
  void note_host_error(const Error& error) const;

  // atapi_commands.cpp: packets that do something
  void packet(const Packet& cdb);
  void packet_with_disc(const Packet& cdb);
  void request_sense(const Packet& cdb);
  void inquiry(const Packet& cdb);
  void start_stop(const Packet& cdb);
  void read_cd(const Packet& cdb, bool by_time);
  void event_status(const Packet& cdb);
  void mode_sense(const Packet& cdb);
  void mode_select_done();
  [[nodiscard]] Reply mode_page(std::uint8_t page, unsigned control) const;

  // atapi_reports.cpp: packets that describe disc and drive
  void read_toc(const Packet& cdb);
  void read_subchannel(const Packet& cdb);
  void configuration(const Packet& cdb);
  void disc_information(const Packet& cdb);
  void track_information(const Packet& cdb);
  void dvd_structure(const Packet& cdb);
  void mechanism_status(const Packet& cdb);

  [[nodiscard]] bool has_disc() const { return disc_ != nullptr && !s_.tray_open; }
  [[nodiscard]] std::uint32_t disc_blocks() const;
  [[nodiscard]] bool is_dvd() const;
  void open_tray();
  void close_tray();

  BlockDevice* disc_;
  std::function<void(bool open)> tray_moved_ = [](bool) {};
  std::string model_;
  std::string serial_;
  std::string firmware_;
  State s_;                          // s_.transfer is unused: the base class has it
  std::vector<iovec> spare_pieces_;  // lent to the next DMA
};

/// Sense keys and additional codes (MMC-3, annex F) that the parts of AtapiCdrom share.
namespace atapi {
inline constexpr std::uint8_t kNotReady = 2;
inline constexpr std::uint8_t kMediumError = 3;
inline constexpr std::uint8_t kIllegalRequest = 5;
inline constexpr std::uint8_t kUnitAttention = 6;
inline constexpr std::uint8_t kAscInvalidOpcode = 0x20;
inline constexpr std::uint8_t kAscOutOfRange = 0x21;
inline constexpr std::uint8_t kAscInvalidField = 0x24;
inline constexpr std::uint8_t kAscInvalidParameter = 0x26;
inline constexpr std::uint8_t kAscMediumChanged = 0x28;
inline constexpr std::uint8_t kAscSavingUnsupported = 0x39;
inline constexpr std::uint8_t kAscNoMedium = 0x3A;
inline constexpr std::uint8_t kAscRemovalPrevented = 0x53;
inline constexpr std::uint8_t kAscIllegalMode = 0x64;
inline constexpr std::uint8_t kAscUnrecoveredRead = 0x11;

inline constexpr std::uint8_t kUserData = 0x10;  ///< READ CD, byte 9
inline constexpr std::uint8_t kEventEjectRequest = 1;
inline constexpr std::uint8_t kEventNewMedia = 2;
inline constexpr std::uint8_t kEventRemoval = 3;
}  // namespace atapi

}  // namespace whistler
