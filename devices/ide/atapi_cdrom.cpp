#include "devices/ide/atapi_cdrom.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/bytes.hpp"
#include "base/log.hpp"

namespace whistler {
namespace {

constexpr std::uint8_t kReasonCommand = 0x01;  // interrupt reason in COUNT: C/D
constexpr std::uint8_t kReasonToHost = 0x02;   // I/O
constexpr std::uint8_t kPacketDma = 0x01;      // FEATURES of PACKET
constexpr std::uint8_t kPacketOverlap = 0x02;
constexpr std::uint32_t kReadAheadBlocks = 32;  // for PIO; at least one DRQ block's worth
constexpr std::uint32_t kChunkBlocks = 512;     // for DMA: the most one host request moves
constexpr std::uint64_t kBlocksMax = 0x7FFFFFFF;
constexpr std::size_t kRawOverhead = 12 + 4 + 288;
constexpr std::array<std::uint8_t, 8> kRecoveryPage{0x01, 0x06, 0x00, 0x05, 0, 0, 0, 0};
constexpr std::array<std::uint8_t, 16> kAudioPage{0x0E, 0x0E, 0x04, 0,    0, 0, 0, 75,
                                                  1,    0xFF, 2,    0xFF, 0, 0, 0, 0};

std::string or_default(const std::string& text, const char* fallback) {
  return text.empty() ? fallback : text;
}

}  // namespace

AtapiCdrom::AtapiCdrom(const IdeDriveConfig& config, IdeRegisters& registers, IdeHost& host)
    : IdeDrive(registers, host),
      disc_(config.block),
      model_(or_default(config.model, "WHISTLER DVD-ROM")),
      serial_(or_default(config.serial, "WH00000002")),
      firmware_(or_default(config.firmware, "1.0")) {
  AtapiCdrom::reset();
}

// ---- what the person at the drive does ----

void AtapiCdrom::open_tray() {
  if (!s_.tray_open) {
    s_.tray_open = true;
    s_.disc_changed = false;
    s_.media_event = atapi::kEventRemoval;
    tray_moved_(true);
  }
}

void AtapiCdrom::close_tray() {
  if (s_.tray_open) {
    s_.tray_open = false;
    if (disc_ != nullptr) {
      s_.disc_changed = true;
      s_.media_event = atapi::kEventNewMedia;
    }
    tray_moved_(false);
  }
}

Result<void> AtapiCdrom::eject(bool force) {
  if (s_.locked && !force) {
    s_.media_event = atapi::kEventEjectRequest;
    return fail(ErrorCode::kBusy, "cdrom: the guest has locked the tray; it was asked to eject");
  }
  s_.locked = false;
  open_tray();
  return {};
}

Result<void> AtapiCdrom::change_disc(BlockDevice* disc) {
  if (!idle()) {
    return fail(ErrorCode::kBusy, "cdrom: the disc cannot be changed while it is read; drain first");
  }
  if (s_.locked && !s_.tray_open) {
    return fail(ErrorCode::kBusy, "cdrom: the guest has locked the tray; eject it first");
  }
  open_tray();
  disc_ = disc;
  close_tray();
  return {};
}

Result<void> AtapiCdrom::lay_in_tray(BlockDevice* disc) {
  if (!s_.tray_open) {
    return fail(ErrorCode::kInvalid, "cdrom: the tray is not open");
  }
  if (!idle()) {
    return fail(ErrorCode::kBusy, "cdrom: the disc cannot be changed while it is read; drain first");
  }
  disc_ = disc;
  return {};
}

std::uint32_t AtapiCdrom::disc_blocks() const {
  if (disc_ == nullptr) {
    return 0;
  }
  return static_cast<std::uint32_t>(
      std::min(disc_->size() / kBlockBytes + (disc_->size() % kBlockBytes != 0), kBlocksMax));
}

bool AtapiCdrom::is_dvd() const { return disc_blocks() > 80 * 60 * 75; }

// ---- the ATA side ----

void AtapiCdrom::show_signature() {
  regs_.COUNT = 1;
  regs_.LBA_LOW = 1;
  regs_.LBA_MID = 0x14;
  regs_.LBA_HIGH = 0xEB;
}

void AtapiCdrom::reset() {
  s_ = State{};
  s_.recovery_page = kRecoveryPage;
  s_.audio_page = kAudioPage;
  show_signature();
  give_up(ata::kReady);
}

void AtapiCdrom::diagnostic() {
  s_.operation = Operation::kNone;
  s_.blocks = 0;
  s_.sense_key = s_.asc = s_.ascq = 0;
  regs_.ERROR = 0x01;
  regs_.DEVICE = 0xA0;
  show_signature();
  give_up(0);  // a packet device shows itself by DRDY being clear (T13/1410D, 9.10)
}

void AtapiCdrom::device_reset() {
  const std::uint8_t device = regs_.DEVICE;
  diagnostic();
  regs_.DEVICE = device;
}

void AtapiCdrom::execute(std::uint8_t command) {
  s_.operation = Operation::kNone;
  s_.blocks = 0;
  transfer_.phase = IdeTransfer::Phase::kIdle;
  switch (command) {
    case 0x08: device_reset(); return;
    case 0xA0: begin_packet(); return;
    case 0xA1: {  // IDENTIFY PACKET DEVICE
      const auto page = identify();
      transfer_.buffer.assign(page.begin(), page.end());
      transfer_.position = 0;
      start_pio(IdeTransfer::Phase::kPioIn, page.size());
      host_.raise_interrupt();
      return;
    }
    case 0x20:  // READ SECTORS and IDENTIFY DEVICE: who asks for a disk is shown what this is
    case 0xEC:
      show_signature();
      abort_command();
      return;
    case 0xEF: set_features(); return;
    case 0x98:
    case 0xE5:  // CHECK POWER MODE
      regs_.COUNT = 0xFF;
      complete_with_interrupt();
      return;
    case 0xE0:
    case 0xE1:
    case 0xE2:
    case 0xE3:
    case 0xE6:
    case 0xE7:  // FLUSH CACHE
      complete_with_interrupt();
      return;
    default: abort_command(); return;
  }
}

void AtapiCdrom::set_features() {
  if (regs_.FEATURES == 0x03) {
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
  } else if (regs_.FEATURES != 0x66 && regs_.FEATURES != 0xCC) {  // defaults kept or restored after a reset
    abort_command();
    return;
  }
  complete_with_interrupt();
}

std::array<std::uint8_t, 512> AtapiCdrom::identify() const {
  std::array<std::uint8_t, 512> page{};
  const auto put = [&page](unsigned word, unsigned value) {
    store_le<std::uint16_t>(&page[std::size_t{word} * 2], static_cast<std::uint16_t>(value));
  };
  const unsigned kind = s_.transfer_mode >> 3;
  const unsigned mode = s_.transfer_mode & 7;
  put(0, 0x85C0);  // packets of 12 bytes, CD-ROM, removable, DRQ within 50 us
  put_ata_string(std::span(page).subspan(20, 20), serial_);
  put_ata_string(std::span(page).subspan(46, 8), firmware_);
  put_ata_string(std::span(page).subspan(54, 40), model_);
  put(48, 1);       // 32-bit data port
  put(49, 0x0B00);  // IORDY, LBA, DMA
  put(53, 7);       // words 64-70 and 88 are valid
  put(62, 0x07 | (kind == 2 ? 0x100U << mode : 0));
  put(63, 0x07 | (kind == 4 ? 0x100U << mode : 0));
  put(64, 3);  // PIO 3 and 4
  put(65, 120);
  put(66, 120);
  put(67, 300);
  put(68, 120);
  put(71, 30);
  put(72, 30);
  put(80, 0x001E);  // up to ATA/ATAPI-4
  put(82, 0x0210);  // DEVICE RESET, PACKET
  put(83, 0x4000);
  put(84, 0x4000);
  put(85, 0x0210);
  put(87, 0x4000);
  put(88, 0x003F | (kind == 8 ? 0x100U << mode : 0));
  put(93, 0x600B);
  put_identify_checksum(page);
  return page;
}

// ---- the packet protocol ----

void AtapiCdrom::begin_packet() {
  if ((regs_.FEATURES & kPacketOverlap) != 0) {
    abort_command();
    return;
  }
  s_.dma = (regs_.FEATURES & kPacketDma) != 0;
  s_.byte_limit = regs_.LBA_MID | (std::uint32_t{regs_.LBA_HIGH} << 8);
  s_.operation = Operation::kPacket;
  regs_.ERROR = 0;
  regs_.COUNT = kReasonCommand;
  start_pio_out(kPacketBytes);
}

void AtapiCdrom::pio_block_done() {
  switch (s_.operation) {
    case Operation::kPacket: {
      Packet cdb{};
      std::copy_n(transfer_.buffer.begin(), kPacketBytes, cdb.begin());
      transfer_.buffer.clear();
      transfer_.position = 0;
      s_.operation = Operation::kNone;
      packet(cdb);
      return;
    }
    case Operation::kModeSelect: mode_select_done(); return;
    case Operation::kReply:
    case Operation::kRead: next_burst(); return;
    case Operation::kNone: complete(); return;
  }
}

void AtapiCdrom::packet_done() {
  s_.operation = Operation::kNone;
  regs_.COUNT = kReasonCommand | kReasonToHost;
  complete_with_interrupt();
}

void AtapiCdrom::packet_failed(const Sense& sense) {
  s_.operation = Operation::kNone;
  s_.blocks = 0;
  s_.sense_key = sense.key;
  s_.asc = sense.asc;
  s_.ascq = sense.ascq;
  regs_.COUNT = kReasonCommand | kReasonToHost;
  fail_with_interrupt(static_cast<std::uint8_t>(sense.key << 4));
}

void AtapiCdrom::reply(Reply data, std::size_t allocation) {
  data.resize(std::min(data.size(), allocation));
  if (data.empty()) {
    packet_done();
    return;
  }
  s_.operation = Operation::kReply;
  transfer_.buffer = std::move(data);
  begin_data_in();
}

void AtapiCdrom::begin_read(std::uint32_t lba, std::uint32_t blocks, std::uint8_t parts) {
  if (lba > disc_blocks() || blocks > disc_blocks() - lba) {
    packet_failed({atapi::kIllegalRequest, atapi::kAscOutOfRange, 0});
    return;
  }
  if (blocks == 0) {
    packet_done();
    return;
  }
  s_.operation = Operation::kRead;
  s_.lba = lba;
  s_.blocks = blocks;
  s_.parts = parts;
  transfer_.buffer.clear();
  begin_data_in();
}

void AtapiCdrom::begin_data_in() {
  transfer_.position = 0;
  if (s_.dma) {
    wait_for_dma(ata::kReady | ata::kDrq | ata::kBsy);
  } else if (s_.byte_limit == 0) {  // data, but no room for it (T13/1410D, 8.23.5)
    s_.operation = Operation::kNone;
    s_.blocks = 0;
    abort_command();
  } else {
    next_burst();
  }
}

std::uint32_t AtapiCdrom::sector_bytes() const {
  return ((s_.parts & 0x80) != 0 ? 12U : 0) + ((s_.parts & 0x20) != 0 ? 4U : 0) + kBlockBytes +
         ((s_.parts & 0x08) != 0 ? 288U : 0);
}

void AtapiCdrom::next_burst() {
  const std::size_t held = transfer_.buffer.size() - transfer_.position;
  const std::uint64_t left = held + std::uint64_t{s_.blocks} * sector_bytes();
  if (left == 0) {
    packet_done();
    return;
  }
  std::uint32_t limit = std::min<std::uint32_t>(s_.byte_limit, 0xFFFE);
  if (left > limit) {
    limit = std::max(limit & ~1U, 2U);  // only the last block may be odd
  }
  const auto burst = static_cast<std::size_t>(std::min<std::uint64_t>(left, limit));
  if (held < burst) {
    run(fill(std::move(transfer_.buffer), transfer_.position, burst));
    return;
  }
  regs_.COUNT = kReasonToHost;
  regs_.LBA_MID = static_cast<std::uint8_t>(burst);
  regs_.LBA_HIGH = static_cast<std::uint8_t>(burst >> 8);
  start_pio(IdeTransfer::Phase::kPioIn, transfer_.position + burst);
  host_.raise_interrupt();
}

// ---- reading the disc ----

void AtapiCdrom::note_host_error(const Error& error) const {
  log_once(LogLevel::kWarning, fmt::format("cdrom {}", disc_->name()),
           fmt::format("cdrom: {}: reading block {} failed, the guest is told so: {}", disc_->name(), s_.lba,
                       error.message));
}

bool AtapiCdrom::readable(std::uint32_t blocks) const {
  return has_disc() && s_.lba <= disc_blocks() && blocks <= disc_blocks() - s_.lba;
}

void AtapiCdrom::expand(std::span<const std::uint8_t> data, std::uint32_t lba, std::uint8_t* to) const {
  if ((s_.parts & 0x80) != 0) {
    std::fill_n(to, 12, std::uint8_t{0xFF});
    to[0] = to[11] = 0;
    to += 12;
  }
  if ((s_.parts & 0x20) != 0) {  // minute, second, frame in BCD, mode 1
    const auto bcd = [](std::uint32_t value) {
      return static_cast<std::uint8_t>(((value / 10 % 10) << 4) | value % 10);
    };
    const std::uint32_t frame = lba + 150;
    to[0] = bcd(frame / 75 / 60);
    to[1] = bcd(frame / 75 % 60);
    to[2] = bcd(frame % 75);
    to[3] = 1;
    to += 4;
  }
  to = std::copy(data.begin(), data.end(), to);
  if ((s_.parts & 0x08) != 0) {
    std::fill_n(to, 288, std::uint8_t{0});
  }
}

Task<Result<void>> AtapiCdrom::read_blocks(std::uint32_t blocks, std::vector<std::uint8_t>& to) const {
  BlockDevice& disc = *disc_;
  const std::uint64_t offset = std::uint64_t{s_.lba} * kBlockBytes;
  to.resize(std::size_t{blocks} * kBlockBytes);
  const iovec there{to.data(),
                    static_cast<std::size_t>(std::min<std::uint64_t>(to.size(), disc.size() - offset))};
  std::fill(to.begin() + static_cast<std::ptrdiff_t>(there.iov_len), to.end(), std::uint8_t{0});
  auto result = co_await read_aligned(disc, offset, IoVec(&there, 1));
  co_return result;
}

Task<void> AtapiCdrom::fill(std::vector<std::uint8_t> buffer, std::size_t position, std::size_t needed) {
  const auto mine = epoch();
  buffer.erase(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(position));
  std::uint32_t blocks = std::min(s_.blocks, kReadAheadBlocks);
  std::vector<std::uint8_t> data;
  for (;;) {
    if (!readable(blocks)) {  // the disc was taken out half-way
      packet_failed({atapi::kNotReady, atapi::kAscNoMedium, 0});
      co_return;
    }
    const auto result = co_await read_blocks(blocks, data);
    if (mine != epoch()) {
      co_return;
    }
    if (result) {
      break;
    }
    const std::size_t enough =
        (needed - std::min(needed, buffer.size()) + sector_bytes() - 1) / sector_bytes();
    if (blocks <= enough) {
      note_host_error(result.error());
      packet_failed({atapi::kMediumError, atapi::kAscUnrecoveredRead, 0});
      co_return;
    }
    blocks = static_cast<std::uint32_t>(enough);  // what was read ahead may be what is bad
  }
  for (std::uint32_t i = 0; i < blocks; ++i) {
    const std::size_t at = buffer.size();
    buffer.resize(at + sector_bytes());
    expand(std::span(data).subspan(std::size_t{i} * kBlockBytes, kBlockBytes), s_.lba + i, &buffer[at]);
  }
  s_.lba += blocks;
  s_.blocks -= blocks;
  transfer_.buffer = std::move(buffer);
  transfer_.position = 0;
  next_burst();
}

void AtapiCdrom::dma_go() {
  BusMaster& bus = host_.bus_master();
  const bool to_drive = s_.operation == Operation::kModeSelect;
  const std::uint64_t bytes =
      s_.operation == Operation::kRead ? std::uint64_t{s_.blocks} * sector_bytes() : transfer_.buffer.size();
  DmaPlan plan = bus.plan(bytes, std::move(spare_pieces_));
  switch (plan.outcome) {
    case DmaPlan::Outcome::kReady: break;
    case DmaPlan::Outcome::kTooShort:  // no interrupt comes
      s_.operation = Operation::kNone;
      bus.end(false);
      complete();
      return;
    case DmaPlan::Outcome::kNoBus:
      if (!to_drive) {  // data that reaches no memory
        bus.end(true);
        packet_done();
        return;
      }
      [[fallthrough]];
    case DmaPlan::Outcome::kFault:
      bus.fault();
      s_.operation = Operation::kNone;
      abort_command();
      return;
  }
  if (s_.operation == Operation::kRead) {
    bus.begin();
    run(dma_read(std::move(plan)));
  } else if (to_drive) {
    gather(plan.pieces, transfer_.buffer);
    bus.end(plan.more);
    mode_select_done();
  } else {
    scatter(plan.pieces, transfer_.buffer);
    end_dma(std::move(plan), nullptr);
  }
}

void AtapiCdrom::end_dma(DmaPlan plan, const Sense* sense) {
  spare_pieces_ = std::move(plan.pieces);
  host_.bus_master().end(plan.more);
  if (sense == nullptr) {
    packet_done();
  } else {
    packet_failed(*sense);
  }
}

Task<void> AtapiCdrom::dma_read(DmaPlan plan) {
  const auto mine = epoch();
  static constexpr Sense kNoDisc{atapi::kNotReady, atapi::kAscNoMedium, 0};
  static constexpr Sense kBadBlock{atapi::kMediumError, atapi::kAscUnrecoveredRead, 0};
  PieceCursor cursor(plan.pieces);
  std::vector<std::uint8_t> data;
  while (s_.blocks != 0) {
    const std::uint32_t blocks = std::min(s_.blocks, kChunkBlocks);
    if (!readable(blocks)) {
      end_dma(std::move(plan), &kNoDisc);
      co_return;
    }
    const std::uint64_t offset = std::uint64_t{s_.lba} * kBlockBytes;
    const bool direct =
        s_.parts == atapi::kUserData && offset + std::uint64_t{blocks} * kBlockBytes <= disc_->size();
    const auto pieces = cursor.take(std::uint64_t{blocks} * sector_bytes());
    Result<void> result;
    if (direct) {
      result = co_await read_aligned(*disc_, offset, pieces);
    } else {
      result = co_await read_blocks(blocks, data);
    }
    if (mine != epoch()) {
      co_return;
    }
    if (!result) {
      note_host_error(result.error());
      end_dma(std::move(plan), &kBadBlock);
      co_return;
    }
    if (!direct) {
      std::vector<std::uint8_t> sectors(std::size_t{blocks} * sector_bytes());
      for (std::uint32_t i = 0; i < blocks; ++i) {
        expand(std::span(data).subspan(std::size_t{i} * kBlockBytes, kBlockBytes), s_.lba + i,
               &sectors[std::size_t{i} * sector_bytes()]);
      }
      scatter(pieces, sectors);
    }
    s_.lba += blocks;
    s_.blocks -= blocks;
  }
  end_dma(std::move(plan), nullptr);
}

// ---- saved state ----

AtapiCdrom::State AtapiCdrom::state() const {
  State state = s_;
  state.transfer = transfer_;
  return state;
}

Result<void> AtapiCdrom::check(const State& state) const {
  if (auto sound = IdeDrive::check(state.transfer); !sound) {
    return sound;
  }
  const bool sound =
      state.operation <= Operation::kModeSelect && state.byte_limit <= 0xFFFF && state.blocks <= kBlocksMax &&
      state.lba <= kBlocksMax && (state.sense_key & 0xF0) == 0 &&
      (state.operation != Operation::kPacket || state.transfer.buffer.size() == kPacketBytes) &&
      (state.operation == Operation::kRead || state.blocks == 0) &&
      state.transfer.buffer.size() <= 0x20000 + kReadAheadBlocks * kRawOverhead;
  return sound ? Result<void>{} : fail(ErrorCode::kCorrupt, "cdrom: the saved state contradicts itself");
}

void AtapiCdrom::load(const State& state) {
  s_ = state;
  s_.transfer = {};
  load_transfer(state.transfer);
}

}  // namespace whistler
