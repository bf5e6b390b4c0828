// What the two kinds of IDE drives share: the task file, the PIO buffer, the hand-over to the bus master, and
// requests in flight. AtaDisk and AtapiCdrom add their commands. Models: the host interface states of
// ATA/ATAPI-6 (idle, PIO in, PIO out, DMA, busy), reset at any moment. Missing: queued commands and overlap.
// Documentation: T13/1410D (ATA/ATAPI-6), chapters 7 and 9.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/async.hpp"
#include "base/task.hpp"
#include "devices/ide/bus_master.hpp"
#include "devices/ide/drive_config.hpp"

namespace whistler {

/// Bits of the task file, as T13/1410D spells them.
namespace ata {
inline constexpr std::uint8_t kErr = 0x01;   ///< STATUS; CHK for packets
inline constexpr std::uint8_t kDrq = 0x08;   ///< STATUS
inline constexpr std::uint8_t kDsc = 0x10;   ///< STATUS: seek complete
inline constexpr std::uint8_t kDrdy = 0x40;  ///< STATUS
inline constexpr std::uint8_t kBsy = 0x80;   ///< STATUS
inline constexpr std::uint8_t kAbrt = 0x04;  ///< ERROR
inline constexpr std::uint8_t kIdnf = 0x10;  ///< ERROR
inline constexpr std::uint8_t kUnc = 0x40;   ///< ERROR
inline constexpr std::uint8_t kLba = 0x40;   ///< DEVICE
inline constexpr std::uint8_t kDev = 0x10;   ///< DEVICE
inline constexpr std::uint8_t kReady = kDrdy | kDsc;
}  // namespace ata

/// The registers of one drive. The HOB_ ones hold what was written before the last write (48-bit commands).
struct IdeRegisters {
  std::uint8_t STATUS = ata::kReady;
  std::uint8_t ERROR = 0x01;  ///< diagnostic passed
  std::uint8_t FEATURES = 0;
  std::uint8_t COUNT = 1;
  std::uint8_t LBA_LOW = 1;
  std::uint8_t LBA_MID = 0;
  std::uint8_t LBA_HIGH = 0;
  std::uint8_t DEVICE = 0xA0;
  std::uint8_t HOB_FEATURES = 0;
  std::uint8_t HOB_COUNT = 0;
  std::uint8_t HOB_LBA_LOW = 0;
  std::uint8_t HOB_LBA_MID = 0;
  std::uint8_t HOB_LBA_HIGH = 0;
  bool operator==(const IdeRegisters&) const = default;
  static void fields(auto& self, auto&& visit) {
    visit("STATUS", self.STATUS);
    visit("ERROR", self.ERROR);
    visit("FEATURES", self.FEATURES);
    visit("COUNT", self.COUNT);
    visit("LBA_LOW", self.LBA_LOW);
    visit("LBA_MID", self.LBA_MID);
    visit("LBA_HIGH", self.LBA_HIGH);
    visit("DEVICE", self.DEVICE);
    visit("HOB_FEATURES", self.HOB_FEATURES);
    visit("HOB_COUNT", self.HOB_COUNT);
    visit("HOB_LBA_LOW", self.HOB_LBA_LOW);
    visit("HOB_LBA_MID", self.HOB_LBA_MID);
    visit("HOB_LBA_HIGH", self.HOB_LBA_HIGH);
  }
};

/// What a drive is plugged into.
class IdeHost {
 public:
  virtual ~IdeHost() = default;
  /// The drive asserts its interrupt request; reading STATUS or writing a command takes it back.
  virtual void raise_interrupt() = 0;
  [[nodiscard]] virtual BusMaster& bus_master() = 0;
};

/// Where a command's data stands.
struct IdeTransfer {
  enum class Phase : std::uint8_t {
    kIdle,
    kPioIn,    ///< the guest reads `buffer` from `position` to `end`
    kPioOut,   ///< the guest fills `buffer` from `position` to `end`
    kDmaWait,  ///< the bus master has not been started yet
    kBusy,     ///< I/O is in flight; never saved
  };
  static constexpr std::uint32_t kBufferMax = 0x40000;

  Phase phase = Phase::kIdle;
  std::uint32_t position = 0;
  std::uint32_t end = 0;  ///< end of the DRQ block; the buffer may go on with data read ahead
  std::vector<std::uint8_t> buffer;
  bool operator==(const IdeTransfer&) const = default;
  static void fields(auto& self, auto&& visit) {
    visit("phase", self.phase);
    visit("position", self.position);
    visit("end", self.end);
    visit("buffer", self.buffer);
  }
};

/// Base of the drives. Under the machine lock; must not be destroyed while I/O is in flight.
class IdeDrive {
 public:
  /// `registers` and `host` must outlive the drive.
  IdeDrive(IdeRegisters& registers, IdeHost& host) : regs_(registers), host_(host) {}
  virtual ~IdeDrive() = default;
  IdeDrive(const IdeDrive&) = delete;
  IdeDrive& operator=(const IdeDrive&) = delete;

  /// The guest wrote `command`; the drive is neither busy nor waiting for data.
  virtual void execute(std::uint8_t command) = 0;
  /// DEVICE RESET, the one command taken at any moment; only packet devices know it.
  virtual void device_reset() = 0;
  /// EXECUTE DEVICE DIAGNOSTIC, which both drives of a channel obey; the channel raises the interrupt.
  virtual void diagnostic() = 0;

  /// The data register; `width` 1, 2 or 4 bytes. Outside of a transfer reads give 0 and writes are lost.
  [[nodiscard]] std::uint32_t read_data(unsigned width);
  void write_data(unsigned width, std::uint32_t value);
  /// A run of such accesses, with the same effects; the size is a multiple of `width`.
  void read_data_many(unsigned width, std::span<std::uint8_t> to);
  void write_data_many(unsigned width, std::span<const std::uint8_t> from);

  /// The guest started the bus master: goes on if a transfer waits for that.
  void bus_master_started();

  /// SRST is set: what was going on is given up, the drive is busy.
  void soft_reset();
  /// SRST is cleared.
  void end_soft_reset() { diagnostic(); }

  /// Power-on state. I/O still in flight is forgotten, but the drive is busy until it has ended.
  virtual void reset() = 0;

  [[nodiscard]] Task<void> drain() { return gate_.drain(); }
  [[nodiscard]] bool idle() const { return gate_.inside() == 0; }

 protected:
  /// A PIO block has been read or filled completely by the guest.
  virtual void pio_block_done() = 0;
  /// The bus master may move the data of the command that called wait_for_dma().
  virtual void dma_go() = 0;

  /// Offers bytes [position, end) of the buffer to the guest, or asks for them. The caller raises the
  /// interrupt.
  void start_pio(IdeTransfer::Phase phase, std::size_t end);
  /// A PIO transfer of `bytes` from the start of an empty (zeroed) buffer.
  void start_pio_out(std::size_t bytes);
  /// The command's data goes by DMA: calls dma_go() now or when the bus master is started. `waiting` is the
  /// status until then.
  void wait_for_dma(std::uint8_t waiting);

  /// Makes the drive busy and runs `work`, which must check `epoch() == its own` after each co_await and
  /// touch nothing of the drive if it is not: the drive was reset meanwhile.
  void run(Task<void> work);
  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }

  /// Ends a command well / with an error, without an interrupt.
  void complete();
  void fail_command(std::uint8_t error);
  /// Both with an interrupt.
  void complete_with_interrupt();
  void abort_command() { fail_with_interrupt(ata::kAbrt); }
  void fail_with_interrupt(std::uint8_t error);

  /// Gives up whatever goes on. STATUS becomes `status` as soon as no I/O is in flight, and is BSY until
  /// then, so that no late write of the host falls behind the guest's next command.
  void give_up(std::uint8_t status);

  /// Reads or writes with memory as the device wants it aligned, through a bounce buffer if need be.
  [[nodiscard]] static Task<Result<void>> read_aligned(BlockDevice& device, std::uint64_t offset, IoVec to);
  [[nodiscard]] static Task<Result<void>> write_aligned(BlockDevice& device, std::uint64_t offset, IoVec from,
                                                        WriteFlags flags);

  /// Whether a loaded transfer holds together.
  [[nodiscard]] Result<void> check(const IdeTransfer& transfer) const;
  /// Forgets running I/O (there must be none) and adopts `transfer`.
  void load_transfer(const IdeTransfer& transfer);

  IdeRegisters& regs_;
  IdeHost& host_;
  IdeTransfer transfer_;

 private:
  void io_ended();
  /// How many of `wanted` bytes are whole accesses that do not reach the end of the DRQ block.
  [[nodiscard]] std::size_t short_of_end(IdeTransfer::Phase phase, unsigned width, std::size_t wanted) const;

  Gate gate_;
  std::uint64_t epoch_ = 0;
  bool giving_up_ = false;
  std::uint8_t status_after_ = 0;
};

/// `text` as IDENTIFY wants it: `words` words, the first character in the high byte, padded with blanks; what
/// is not printable ASCII becomes '?'.
void put_ata_string(std::span<std::uint8_t> to, std::string_view text);
/// Sets word 255 so that all 512 bytes add up to zero.
void put_identify_checksum(std::span<std::uint8_t, 512> page);

}  // namespace whistler
