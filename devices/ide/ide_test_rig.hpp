// For the tests of this folder: a PIIX3 IDE function with memory and wires around it, and disks that
// misbehave.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "base/async.hpp"
#include "base/bytes.hpp"
#include "block/memory.hpp"
#include "devices/ide/piix_ide.hpp"

namespace whistler::ide_test {

inline constexpr std::uint64_t kSector = 512;

/// A disk whose requests wait until released, and fail where told to.
class TestDisk final : public BlockDevice {
 public:
  explicit TestDisk(std::uint64_t size) : inner(size) {}
  [[nodiscard]] std::uint64_t size() const override {
    return claimed_size != 0 ? claimed_size : inner.size();
  }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] std::string name() const override { return "test"; }
  [[nodiscard]] std::uint32_t request_alignment() const override { return alignment; }
  Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    ++reads;
    aligned = aligned && is_aligned(to);
    co_await pause();
    if (hits_bad(offset, iovec_bytes(to))) {
      co_return fail(ErrorCode::kIo, "test: bad sector");
    }
    auto result = co_await inner.readv(offset, to);
    co_return result;
  }
  Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags) override {
    fua = flags.fua;
    aligned = aligned && is_aligned(from);
    co_await pause();
    if (hits_bad(offset, iovec_bytes(from))) {
      co_return fail(ErrorCode::kNoSpace, "test: bad sector");
    }
    auto result = co_await inner.writev(offset, from, flags);
    co_return result;
  }
  Task<Result<void>> flush() override {
    co_await pause();
    if (fail_flush) {
      co_return fail(ErrorCode::kIo, "test: flush");
    }
    auto result = co_await inner.flush();
    co_return result;
  }
  Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override {
    co_await pause();
    auto result = co_await inner.discard(offset, bytes);
    co_return result;
  }
  Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) override {
    return inner.write_zeroes(offset, bytes, flags);
  }
  Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return inner.block_status(offset, bytes);
  }
  Task<Result<void>> resize(std::uint64_t bytes) override { return inner.resize(bytes); }
  Task<Result<void>> close() override { return inner.close(); }

  void release() {
    while (!waiting.empty()) {
      waiting.wake_all();
    }
  }

  MemoryBlockDevice inner;
  std::uint64_t claimed_size = 0;  ///< what size() says, if not the truth
  bool parked = false;
  bool fail_flush = false;
  bool fua = false;
  bool aligned = true;
  std::uint32_t alignment = 1;
  unsigned reads = 0;
  std::set<std::uint64_t> bad_sectors;
  WaitQueue waiting;

 private:
  Task<void> pause() {
    if (parked) {
      co_await waiting.wait();
    }
  }
  [[nodiscard]] bool is_aligned(IoVec vec) const {
    bool good = true;
    for (const auto& piece : vec) {
      good = good && reinterpret_cast<std::uintptr_t>(piece.iov_base) % alignment == 0;
    }
    return good;
  }
  [[nodiscard]] bool hits_bad(std::uint64_t offset, std::uint64_t bytes) const {
    const auto at = bad_sectors.lower_bound(offset / kSector);
    return at != bad_sectors.end() && *at * kSector < offset + bytes;
  }
};

struct Prd {
  std::uint32_t address;
  std::uint32_t size_and_end;
};
inline constexpr std::uint32_t kEot = 0x80000000;

inline IdeDriveConfig disk_config(BlockDevice& block) {
  IdeDriveConfig config;
  config.block = &block;
  config.serial = "testdisk";
  config.firmware = "version";
  return config;
}
inline IdeDriveConfig cdrom_config(BlockDevice* block) {
  IdeDriveConfig config;
  config.kind = IdeKind::kCdrom;
  config.block = block;
  config.model = "MAKER DRIVE";
  return config;
}

/// Drives on the primary channel, one MiB of RAM at 0, bus mastering enabled.
struct Rig {
  static constexpr std::uint32_t kTable = 0x80000;  // where dma() puts the descriptor table
  static constexpr unsigned kData = 0, kError = 1, kFeatures = 1, kCount = 2, kLow = 3, kMid = 4, kHigh = 5,
                            kDevice = 6, kStatus = 7, kCommand = 7;

  explicit Rig(std::optional<IdeDriveConfig> master, std::optional<IdeDriveConfig> slave = {})
      : ide(memory_with(ram, memory), IrqLine(irqs, 14), IrqLine(irqs, 15),
            PiixIde::Drives{{{master, slave}, {}}}) {
    ide.config_write(kPciCommand, 2, kPciCommandIo | kPciCommandMaster);
  }

  static GuestMemory& memory_with(std::vector<std::uint8_t>& bytes, GuestMemory& view) {
    view.add(0, bytes);
    return view;
  }

  std::uint8_t in(unsigned reg, unsigned channel = 0) {
    return static_cast<std::uint8_t>(ide.command_block(channel).read(reg, 1));
  }
  void out(unsigned reg, unsigned value, unsigned channel = 0) {
    ide.command_block(channel).write(reg, 1, value & 0xFF);
  }
  std::uint16_t data() { return static_cast<std::uint16_t>(ide.command_block(0).read(0, 2)); }
  void data(unsigned value) { ide.command_block(0).write(0, 2, value); }
  void control(unsigned value) { ide.control_block(0).write(0, 1, value); }
  std::uint8_t alternate() { return static_cast<std::uint8_t>(ide.control_block(0).read(0, 1)); }
  std::uint8_t bm(unsigned reg) { return static_cast<std::uint8_t>(ide.bars()[4].handler->read(reg, 1)); }
  void bm(unsigned reg, unsigned value) { ide.bars()[4].handler->write(reg, 1, value); }
  bool irq() const { return irqs.level(14); }

  void address(std::uint64_t lba, unsigned count) {
    out(kDevice, 0x40 | static_cast<unsigned>(lba >> 24));
    out(kCount, count);
    out(kLow, static_cast<unsigned>(lba));
    out(kMid, static_cast<unsigned>(lba >> 8));
    out(kHigh, static_cast<unsigned>(lba >> 16));
  }
  void address48(std::uint64_t lba, unsigned count) {
    out(kDevice, 0x40);
    out(kCount, count >> 8);
    out(kLow, static_cast<unsigned>(lba >> 24));
    out(kMid, static_cast<unsigned>(lba >> 32));
    out(kHigh, static_cast<unsigned>(lba >> 40));
    out(kCount, count);
    out(kLow, static_cast<unsigned>(lba));
    out(kMid, static_cast<unsigned>(lba >> 8));
    out(kHigh, static_cast<unsigned>(lba >> 16));
  }
  std::vector<std::uint8_t> read_bytes(std::size_t bytes) {
    std::vector<std::uint8_t> result;
    for (std::size_t i = 0; i < bytes; i += 2) {
      const auto word = data();
      result.push_back(static_cast<std::uint8_t>(word));
      result.push_back(static_cast<std::uint8_t>(word >> 8));
    }
    return result;
  }
  void write_bytes(std::span<const std::uint8_t> bytes) {
    for (std::size_t i = 0; i < bytes.size(); i += 2) {
      data(load_le<std::uint16_t>(&bytes[i]));
    }
  }
  void table(std::initializer_list<Prd> prds) {
    std::uint32_t at = kTable;
    for (const auto& prd : prds) {
      store_le<std::uint32_t>(&ram[at], prd.address);
      store_le<std::uint32_t>(&ram[at + 4], prd.size_and_end);
      at += 8;
    }
    ide.bars()[4].handler->write(4, 4, kTable);
  }
  /// Stops the engine, clears its interrupt, sets the table.
  void prepare(std::initializer_list<Prd> prds) {
    bm(0, 0);
    bm(2, 6);
    table(prds);
  }
  /// The whole of a DMA command whose registers are set; returns the bus master's status.
  std::uint8_t dma(unsigned command, bool to_memory, std::initializer_list<Prd> prds) {
    prepare(prds);
    out(kCommand, command);
    bm(0, to_memory ? 9 : 1);
    return bm(2);
  }
  void packet(std::initializer_list<unsigned> cdb, unsigned limit = 0xFFFE, bool by_dma = false) {
    out(kFeatures, by_dma ? 1 : 0);
    out(kMid, limit);
    out(kHigh, limit >> 8);
    out(kCommand, 0xA0);
    std::array<std::uint8_t, 12> bytes{};
    std::size_t i = 0;
    for (const auto byte : cdb) {
      bytes[i++] = static_cast<std::uint8_t>(byte);
    }
    write_bytes(bytes);
  }
  /// The reply to a packet that fits one DRQ block.
  std::vector<std::uint8_t> reply(std::initializer_list<unsigned> cdb) {
    packet(cdb);
    const std::size_t bytes = in(kMid) | (std::size_t{in(kHigh)} << 8);
    return (in(kStatus)&ata::kDrq) != 0 ? read_bytes(bytes) : std::vector<std::uint8_t>{};
  }
  /// Key, ASC and ASCQ of the last error, in one number.
  unsigned sense() {
    const auto data = reply({0x03, 0, 0, 0, 18});
    return data.size() < 18 ? 0xFFFFFF : (unsigned{data[2]} << 16) | (unsigned{data[12]} << 8) | data[13];
  }
  StateBytes saved() const {
    StateWriter writer;
    ide.save(writer);
    return writer.bytes();
  }

  std::vector<std::uint8_t> ram = std::vector<std::uint8_t>(1 << 20);
  GuestMemory memory;
  IrqRecorder irqs;
  PiixIde ide;
};

inline constexpr std::uint64_t kDiskBytes = 1 << 20;

/// A disk and a CD-ROM drive on one cable.
struct PairRig {
  TestDisk disk{kDiskBytes};
  TestDisk disc{kDiskBytes};
  Rig rig{disk_config(disk), cdrom_config(&disc)};
};

/// Every sector starts with its number.
inline void number_sectors(std::vector<std::uint8_t>& bytes, std::size_t unit = kSector) {
  for (std::size_t at = 0; at + 8 <= bytes.size(); at += unit) {
    store_le<std::uint64_t>(&bytes[at], at / unit + 0x1000);
  }
}

}  // namespace whistler::ide_test
