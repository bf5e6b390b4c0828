#include "devices/ide/ata_disk.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace whistler {
namespace {

constexpr std::uint8_t kActivePower = 0xFF;
constexpr std::uint8_t kIdlePower = 0x80;
constexpr std::uint8_t kStandbyPower = 0x00;
constexpr std::uint32_t kMultipleMax = 16;
constexpr std::uint64_t kLba28Sectors = 1ULL << 28;
constexpr std::uint64_t kLba48Sectors = 1ULL << 48;

IdeGeometry default_geometry(std::uint64_t sectors) {
  const auto cylinders = std::clamp<std::uint64_t>(sectors / (16 * 63), 1, 16383);
  return {static_cast<std::uint16_t>(cylinders), 16, 63};
}

std::string or_default(const std::string& text, const char* fallback) {
  return text.empty() ? fallback : text;
}

}  // namespace

AtaDisk::AtaDisk(const IdeDriveConfig& config, IdeRegisters& registers, IdeHost& host)
    : IdeDrive(registers, host),
      block_(*config.block),
      model_(or_default(config.model, "WHISTLER HARDDISK")),
      serial_(or_default(config.serial, "WH00000001")),
      firmware_(or_default(config.firmware, "1.0")),
      read_only_(config.read_only || config.block->read_only()),
      write_cache_default_(config.write_cache),
      total_sectors_(std::min(config.block->size() / kSectorBytes, kLba48Sectors - 1)) {
  geometry_ = config.geometry.value_or(default_geometry(total_sectors_));
  geometry_.cylinders = std::max<std::uint16_t>(geometry_.cylinders, 1);
  geometry_.heads = std::clamp<std::uint8_t>(geometry_.heads, 1, 16);
  geometry_.sectors = std::clamp<std::uint8_t>(geometry_.sectors, 1, 255);
  AtaDisk::reset();
}

void AtaDisk::reset() {
  s_ = State{};
  s_.cylinders = geometry_.cylinders;
  s_.heads = geometry_.heads;
  s_.sectors = geometry_.sectors;
  s_.write_cache = write_cache_default_;
  s_.max_sectors = total_sectors_;
  give_up(ata::kReady);
}

void AtaDisk::diagnostic() {
  s_.operation = Operation::kNone;
  s_.remaining = 0;
  s_.power_mode = kActivePower;
  regs_.ERROR = 0x01;
  regs_.COUNT = 1;
  regs_.LBA_LOW = 1;
  regs_.LBA_MID = 0;
  regs_.LBA_HIGH = 0;
  regs_.DEVICE = 0xA0;
  give_up(ata::kReady);
}

void AtaDisk::execute(std::uint8_t command) {
  s_.operation = Operation::kNone;
  s_.remaining = 0;
  transfer_.phase = IdeTransfer::Phase::kIdle;
  if (!execute_transfer(command) && !execute_mode(command)) {
    abort_command();
  }
}

bool AtaDisk::execute_transfer(std::uint8_t command) {
  const std::uint32_t multiple = s_.multiple;
  switch (command) {
    case 0x20:  // READ SECTORS, with and without retries
    case 0x21: begin_read(false, 1); return true;
    case 0x24: begin_read(true, 1); return true;
    case 0x25: begin_dma(true, Operation::kRead, false); return true;
    case 0x29: begin_read(true, multiple); return true;
    case 0x30:
    case 0x31: begin_write(false, 1, false); return true;
    case 0x34: begin_write(true, 1, false); return true;
    case 0x35: begin_dma(true, Operation::kWrite, false); return true;
    case 0x39: begin_write(true, multiple, false); return true;
    case 0x3D: begin_dma(true, Operation::kWrite, true); return true;  // WRITE DMA FUA EXT
    case 0x40:
    case 0x41: begin_verify(false); return true;
    case 0x42: begin_verify(true); return true;
    case 0xC4: begin_read(false, multiple); return true;
    case 0xC5: begin_write(false, multiple, false); return true;
    case 0xC8:
    case 0xC9: begin_dma(false, Operation::kRead, false); return true;
    case 0xCA:
    case 0xCB: begin_dma(false, Operation::kWrite, false); return true;
    case 0xCE: begin_write(true, multiple, true); return true;  // WRITE MULTIPLE FUA EXT
    case 0x06: begin_trim(); return true;                       // DATA SET MANAGEMENT
    case 0xE4: send_page(s_.sector_buffer); return true;        // READ BUFFER
    case 0xE8:                                                  // WRITE BUFFER
      s_.operation = Operation::kWriteBuffer;
      start_pio_out(kSectorBytes);
      return true;
    case 0xE7:
    case 0xEA: begin_flush(); return true;
    case 0xEC: send_page(identify()); return true;
    default: return false;
  }
}

bool AtaDisk::execute_mode(std::uint8_t command) {
  if (command >= 0x10 && command <= 0x1F) {  // RECALIBRATE
    regs_.LBA_MID = 0;
    regs_.LBA_HIGH = 0;
    complete_with_interrupt();
    return true;
  }
  switch (command) {
    case 0x70:  // SEEK
      if (const Address to = address(false); !to.valid) {
        fail_at(to.lba, ata::kIdnf | ata::kAbrt);
      } else {
        complete_with_interrupt();
      }
      return true;
    case 0x91: set_parameters(); return true;
    case 0xB0: execute_smart(); return true;
    case 0xC6: set_multiple(); return true;
    case 0x94:  // STANDBY IMMEDIATE, IDLE IMMEDIATE, STANDBY, IDLE and SLEEP under their old and new numbers
    case 0x96:
    case 0x99:
    case 0xE0:
    case 0xE2:
    case 0xE6: idle_at(kStandbyPower); return true;
    case 0x95:
    case 0x97:
    case 0xE1:
    case 0xE3: idle_at(kIdlePower); return true;
    case 0x98:
    case 0xE5:  // CHECK POWER MODE
      regs_.COUNT = s_.power_mode;
      complete_with_interrupt();
      return true;
    case 0xEF: set_features(); return true;
    case 0xF8: show_native_max(false); return true;
    case 0x27: show_native_max(true); return true;
    case 0xF9: set_max(false); return true;
    case 0x37: set_max(true); return true;
    default: return false;  // NOP (00h) too is answered with ABRT
  }
}

std::uint64_t AtaDisk::lba_register(bool extended) const {
  const std::uint64_t low =
      regs_.LBA_LOW | (std::uint64_t{regs_.LBA_MID} << 8) | (std::uint64_t{regs_.LBA_HIGH} << 16);
  if (extended) {
    return low | (std::uint64_t{regs_.HOB_LBA_LOW} << 24) | (std::uint64_t{regs_.HOB_LBA_MID} << 32) |
           (std::uint64_t{regs_.HOB_LBA_HIGH} << 40);
  }
  if ((regs_.DEVICE & ata::kLba) != 0) {
    return low | (std::uint64_t{regs_.DEVICE & 0x0FU} << 24);
  }
  // Sectors of a track count from 1; sector 0 has no address.
  const std::uint64_t cylinder = low >> 8;
  const std::uint64_t head = regs_.DEVICE & 0x0FU;
  if (regs_.LBA_LOW == 0 || regs_.LBA_LOW > s_.sectors || head >= s_.heads) {
    return kLba48Sectors;
  }
  return (cylinder * s_.heads + head) * s_.sectors + regs_.LBA_LOW - 1;
}

AtaDisk::Address AtaDisk::address(bool extended) const {
  Address a;
  a.lba = lba_register(extended);
  const std::uint32_t count = regs_.COUNT | (extended ? std::uint32_t{regs_.HOB_COUNT} << 8 : 0);
  a.count = count != 0 ? count : extended ? 0x10000 : 0x100;
  a.valid = a.lba < s_.max_sectors && a.count <= s_.max_sectors - a.lba;
  return a;
}

void AtaDisk::show_lba(std::uint64_t lba) {
  const auto byte = [](std::uint64_t value, unsigned shift) {
    return static_cast<std::uint8_t>(value >> shift);
  };
  if (!s_.extended && (regs_.DEVICE & ata::kLba) == 0) {
    const std::uint64_t track = lba / s_.sectors;
    regs_.LBA_LOW = byte(lba % s_.sectors + 1, 0);
    regs_.LBA_MID = byte(track / s_.heads, 0);
    regs_.LBA_HIGH = byte(track / s_.heads, 8);
    regs_.DEVICE = static_cast<std::uint8_t>((regs_.DEVICE & 0xF0) | (track % s_.heads));
    return;
  }
  regs_.LBA_LOW = byte(lba, 0);
  regs_.LBA_MID = byte(lba, 8);
  regs_.LBA_HIGH = byte(lba, 16);
  if (s_.extended) {
    regs_.HOB_LBA_LOW = byte(lba, 24);
    regs_.HOB_LBA_MID = byte(lba, 32);
    regs_.HOB_LBA_HIGH = byte(lba, 40);
  } else {
    regs_.DEVICE = static_cast<std::uint8_t>((regs_.DEVICE & 0xF0) | (byte(lba, 24) & 0x0F));
  }
}

void AtaDisk::set_features() {
  switch (regs_.FEATURES) {
    case 0x02: s_.write_cache = true; break;
    case 0x82: {
      s_.write_cache = false;
      begin_flush();  // what the cache holds becomes durable
      return;
    }
    case 0x03: {
      const std::uint8_t kind = regs_.COUNT >> 3;
      const std::uint8_t mode = regs_.COUNT & 7;
      const bool known = (kind == 0 && mode <= 1) || (kind == 1 && mode <= 4) || (kind == 2 && mode <= 2) ||
                         (kind == 4 && mode <= 2) || (kind == 8 && mode <= 5);
      if (!known) {
        abort_command();
        return;
      }
      if (kind >= 2) {
        s_.transfer_mode = regs_.COUNT;
      }
      break;
    }
    case 0x55: s_.look_ahead = false; break;
    case 0xAA: s_.look_ahead = true; break;
    case 0x05:  // advanced power management, acoustic management, reverting to defaults: accepted, without
                // effect
    case 0x85:
    case 0x42:
    case 0xC2:
    case 0x66:
    case 0xCC:
    case 0x69:
    case 0x67:
    case 0x96:
    case 0x9A: break;
    default: abort_command(); return;
  }
  complete_with_interrupt();
}

void AtaDisk::set_multiple() {
  const std::uint8_t count = regs_.COUNT;
  if (count > kMultipleMax || (count != 0 && !std::has_single_bit(count))) {
    abort_command();
    return;
  }
  s_.multiple = count;
  complete_with_interrupt();
}

void AtaDisk::set_parameters() {
  const auto heads = static_cast<std::uint8_t>((regs_.DEVICE & 0x0F) + 1);
  const std::uint8_t track = regs_.COUNT;
  if (track == 0) {
    abort_command();
    return;
  }
  s_.heads = heads;
  s_.sectors = track;
  s_.cylinders = static_cast<std::uint16_t>(
      std::clamp<std::uint64_t>(total_sectors_ / (std::uint64_t{heads} * track), 1, 65535));
  complete_with_interrupt();
}

void AtaDisk::show_native_max(bool extended) {
  s_.extended = extended;
  show_lba(std::clamp<std::uint64_t>(total_sectors_, 1, extended ? kLba48Sectors : kLba28Sectors) - 1);
  complete_with_interrupt();
}

void AtaDisk::set_max(bool extended) {
  // FEATURES other than 0 are the password and lock forms.
  const std::uint64_t last = lba_register(extended);
  if ((!extended && regs_.FEATURES != 0) || last >= total_sectors_) {
    abort_command();
    return;
  }
  s_.max_sectors = last + 1;
  complete_with_interrupt();
}

void AtaDisk::idle_at(std::uint8_t power_mode) {
  s_.power_mode = power_mode;
  if (power_mode == kStandbyPower) {
    begin_flush();  // a disk that spins down empties its cache first
  } else {
    complete_with_interrupt();
  }
}

AtaDisk::State AtaDisk::state() const {
  State state = s_;
  state.transfer = transfer_;
  return state;
}

Result<void> AtaDisk::check(const State& state) const {
  if (auto sound = IdeDrive::check(state.transfer); !sound) {
    return sound;
  }
  const bool sectors_held = state.operation != Operation::kRead && state.operation != Operation::kWrite;
  const std::uint64_t drq_bytes = std::uint64_t{state.block_sectors} * kSectorBytes;
  const bool sound =
      state.operation <= Operation::kWriteBuffer && state.max_sectors <= total_sectors_ && state.heads >= 1 &&
      state.heads <= 16 && state.sectors >= 1 && state.multiple <= kMultipleMax &&
      state.block_sectors <= kMultipleMax && std::has_single_bit(state.block_sectors) &&
      state.remaining <= 0x10000 &&
      (sectors_held || (state.lba <= total_sectors_ && state.remaining <= total_sectors_ - state.lba)) &&
      (state.operation != Operation::kWriteBuffer || state.transfer.buffer.size() == kSectorBytes) &&
      (state.operation != Operation::kWrite || state.transfer.buffer.size() <= drq_bytes);
  return sound ? Result<void>{}
               : fail(ErrorCode::kCorrupt, "ide: the saved state of a disk contradicts itself");
}

void AtaDisk::load(const State& state) {
  s_ = state;
  s_.transfer = {};
  load_transfer(state.transfer);
}

}  // namespace whistler
