// AtaDisk: everything that moves data.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/bytes.hpp"
#include "base/log.hpp"
#include "devices/ide/ata_disk.hpp"

namespace whistler {
namespace {

constexpr std::uint32_t kReadAheadSectors = 128;  // for PIO: one host request for many DRQ blocks
constexpr std::uint32_t kChunkSectors = 2048;     // for DMA and VERIFY: the most one host request moves
constexpr std::uint32_t kTrimBlocksMax = 8;
constexpr std::uint8_t kTrim = 0x01;  // FEATURES of DATA SET MANAGEMENT

}  // namespace

void AtaDisk::note_host_error(std::string_view what, const Error& error) const {
  log_once(LogLevel::kWarning, fmt::format("ide {} {}", what, block_.name()),
           fmt::format("ide: {}: {} at sector {} failed, the guest is told so: {}", block_.name(), what,
                       s_.lba, error.message));
}

void AtaDisk::fail_at(std::uint64_t lba, std::uint8_t error) {
  if (lba < (1ULL << 48)) {
    show_lba(lba);
  }
  fail_with_interrupt(error);
}

void AtaDisk::advance(std::uint32_t sectors) {
  s_.lba += sectors;
  s_.remaining -= sectors;
  show_lba(s_.lba);
  regs_.COUNT = static_cast<std::uint8_t>(s_.remaining);
  if (s_.extended) {
    regs_.HOB_COUNT = static_cast<std::uint8_t>(s_.remaining >> 8);
  }
}

bool AtaDisk::begin(bool extended, Operation operation, bool fua) {
  s_.extended = extended;
  if (operation == Operation::kWrite && read_only_) {
    abort_command();
    return false;
  }
  const Address where = address(extended);
  if (!where.valid) {
    fail_at(std::max(where.lba, s_.max_sectors), ata::kIdnf | ata::kAbrt);
    return false;
  }
  s_.operation = operation;
  s_.lba = where.lba;
  s_.remaining = where.count;
  s_.fua = fua || !s_.write_cache;
  s_.power_mode = 0xFF;
  return true;
}

// ---- PIO ----

void AtaDisk::begin_read(bool extended, std::uint32_t block_sectors) {
  if (block_sectors == 0) {  // READ MULTIPLE while that is disabled
    abort_command();
  } else if (begin(extended, Operation::kRead, false)) {
    s_.block_sectors = block_sectors;
    transfer_.buffer.clear();
    transfer_.position = 0;
    next_read_block();
  }
}

void AtaDisk::begin_write(bool extended, std::uint32_t block_sectors, bool fua) {
  if (block_sectors == 0) {
    abort_command();
  } else if (begin(extended, Operation::kWrite, fua)) {
    s_.block_sectors = block_sectors;
    next_write_block();
  }
}

void AtaDisk::send_page(std::span<const std::uint8_t> page) {
  transfer_.buffer.assign(page.begin(), page.end());
  transfer_.position = 0;
  start_pio(IdeTransfer::Phase::kPioIn, page.size());
  host_.raise_interrupt();
}

void AtaDisk::next_read_block() {
  if (transfer_.position == transfer_.buffer.size()) {
    run(read_ahead(std::move(transfer_.buffer)));
    return;
  }
  const std::size_t block = std::size_t{std::min(s_.block_sectors, s_.remaining)} * kSectorBytes;
  start_pio(IdeTransfer::Phase::kPioIn, std::min(transfer_.position + block, transfer_.buffer.size()));
  host_.raise_interrupt();
}

void AtaDisk::next_write_block() {
  start_pio_out(std::size_t{std::min(s_.block_sectors, s_.remaining)} * kSectorBytes);
}

void AtaDisk::pio_block_done() {
  switch (s_.operation) {
    case Operation::kRead:
      advance(std::min(s_.block_sectors, s_.remaining));
      if (s_.remaining != 0) {
        next_read_block();
      } else {
        complete();
      }
      return;
    case Operation::kWrite: run(write_block(std::move(transfer_.buffer))); return;
    case Operation::kWriteBuffer:
      std::copy_n(transfer_.buffer.begin(), kSectorBytes, s_.sector_buffer.begin());
      complete_with_interrupt();
      return;
    case Operation::kNone:
    case Operation::kTrim: complete(); return;
  }
}

Task<void> AtaDisk::read_ahead(std::vector<std::uint8_t> buffer) {
  const auto mine = epoch();
  const std::uint32_t block = std::min(s_.block_sectors, s_.remaining);
  std::uint32_t sectors = std::min(kReadAheadSectors, s_.remaining);
  for (;;) {
    buffer.resize(std::size_t{sectors} * kSectorBytes);
    const iovec whole{buffer.data(), buffer.size()};
    const auto result = co_await read_aligned(block_, s_.lba * kSectorBytes, IoVec(&whole, 1));
    if (mine != epoch()) {
      co_return;
    }
    if (result) {
      break;
    }
    if (sectors == block) {
      note_host_error("reading", result.error());
      fail_at(s_.lba, ata::kUnc);
      co_return;
    }
    sectors = block;  // what was read ahead may be what is bad: the guest has not asked for that yet
  }
  transfer_.buffer = std::move(buffer);
  transfer_.position = 0;
  next_read_block();
}

Task<void> AtaDisk::write_block(std::vector<std::uint8_t> buffer) {
  const auto mine = epoch();
  const iovec whole{buffer.data(), buffer.size()};
  const auto result =
      co_await write_aligned(block_, s_.lba * kSectorBytes, IoVec(&whole, 1), {.fua = s_.fua});
  if (mine != epoch()) {
    co_return;
  }
  if (!result) {
    note_host_error("writing", result.error());
    fail_at(s_.lba, ata::kAbrt);
    co_return;
  }
  const auto sectors = static_cast<std::uint32_t>(buffer.size() / kSectorBytes);
  transfer_.buffer = std::move(buffer);
  advance(std::min(sectors, s_.remaining));
  if (s_.remaining == 0) {
    complete_with_interrupt();
  } else {
    next_write_block();
    host_.raise_interrupt();
  }
}

// ---- DMA ----

void AtaDisk::begin_dma(bool extended, Operation operation, bool fua) {
  if (begin(extended, operation, fua)) {
    wait_for_dma(ata::kReady | ata::kDrq);
  }
}

void AtaDisk::begin_trim() {
  // IDENTIFY promises no more than eight blocks, so the high byte of the count says nothing: drivers that
  // write 8-bit registers leave the last command's there.
  const std::uint32_t blocks = regs_.COUNT;
  if (regs_.FEATURES != kTrim || blocks == 0 || blocks > kTrimBlocksMax || read_only_) {
    abort_command();
    return;
  }
  s_.extended = true;
  s_.operation = Operation::kTrim;
  s_.lba = 0;
  s_.remaining = blocks;
  wait_for_dma(ata::kReady | ata::kDrq);
}

void AtaDisk::dma_go() {
  BusMaster& bus = host_.bus_master();
  DmaPlan plan = bus.plan(std::uint64_t{s_.remaining} * kSectorBytes, std::move(spare_pieces_));
  switch (plan.outcome) {
    case DmaPlan::Outcome::kReady:
      bus.begin();
      run(s_.operation == Operation::kTrim ? trim(std::move(plan)) : dma(std::move(plan)));
      return;
    case DmaPlan::Outcome::kTooShort:
      bus.end(false);  // the guest's driver times out: no interrupt comes (revision 1.0, "standard
                       // programming sequence")
      complete();
      return;
    case DmaPlan::Outcome::kNoBus:
      if (s_.operation == Operation::kRead) {  // data that reaches no memory
        advance(s_.remaining);
        bus.end(true);
        complete_with_interrupt();
        return;
      }
      [[fallthrough]];
    case DmaPlan::Outcome::kFault:
      bus.fault();
      abort_command();
      return;
  }
}

void AtaDisk::end_dma(DmaPlan plan, std::uint8_t error) {
  spare_pieces_ = std::move(plan.pieces);
  host_.bus_master().end(plan.more);
  if (error == 0) {
    complete_with_interrupt();
  } else {
    fail_with_interrupt(error);
  }
}

Task<void> AtaDisk::dma(DmaPlan plan) {
  const auto mine = epoch();
  const bool reading = s_.operation == Operation::kRead;
  PieceCursor cursor(plan.pieces);
  std::uint32_t chunk = kChunkSectors;
  while (s_.remaining != 0) {
    const std::uint32_t sectors = std::min(chunk, s_.remaining);
    const std::uint64_t offset = s_.lba * kSectorBytes;
    PieceCursor after = cursor;
    const auto pieces = after.take(std::uint64_t{sectors} * kSectorBytes);
    Result<void> result;
    if (reading) {
      result = co_await read_aligned(block_, offset, pieces);
    } else {
      result = co_await write_aligned(block_, offset, pieces, {.fua = s_.fua});
    }
    if (mine != epoch()) {
      co_return;
    }
    if (!result && reading && sectors > 1) {
      chunk = std::max(1U, sectors / 8);  // closes in on the sector that is bad
      continue;
    }
    if (!result) {
      note_host_error(reading ? "reading" : "writing", result.error());
      show_lba(s_.lba);
      end_dma(std::move(plan), reading ? ata::kUnc : ata::kAbrt);
      co_return;
    }
    cursor = after;
    advance(sectors);
  }
  end_dma(std::move(plan), 0);
}

Task<void> AtaDisk::trim(DmaPlan plan) {
  const auto mine = epoch();
  std::vector<std::uint8_t> list(std::size_t{s_.remaining} * kSectorBytes);
  gather(plan.pieces, list);
  struct Range {
    std::uint64_t first;
    std::uint64_t count;
  };
  std::vector<Range> ranges;
  bool valid = true;
  for (std::size_t at = 0; at < list.size(); at += 8) {  // 48 bits of LBA, 16 bits of length
    const auto entry = load_le<std::uint64_t>(&list[at]);
    const Range range{entry & 0xFFFFFFFFFFFF, entry >> 48};
    if (range.count != 0) {
      valid = valid && range.first <= s_.max_sectors && range.count <= s_.max_sectors - range.first;
      ranges.push_back(range);
    }
  }
  if (!valid) {
    end_dma(std::move(plan), ata::kAbrt);
    co_return;
  }
  for (const Range& range : ranges) {
    const auto result = co_await block_.discard(range.first * kSectorBytes, range.count * kSectorBytes);
    if (mine != epoch()) {
      co_return;
    }
    if (!result && result.error().code != ErrorCode::kUnsupported) {
      note_host_error("discarding", result.error());
      end_dma(std::move(plan), ata::kAbrt);
      co_return;
    }
  }
  end_dma(std::move(plan), 0);
}

// ---- without a transfer ----

void AtaDisk::begin_verify(bool extended) {
  if (begin(extended, Operation::kNone, false)) {
    run(verify());
  }
}

Task<void> AtaDisk::verify() {
  const auto mine = epoch();
  std::vector<std::uint8_t> nowhere(std::size_t{std::min(kChunkSectors, s_.remaining)} * kSectorBytes);
  std::uint32_t chunk = kChunkSectors;
  while (s_.remaining != 0) {
    const std::uint32_t sectors = std::min(chunk, s_.remaining);
    const iovec whole{nowhere.data(), std::size_t{sectors} * kSectorBytes};
    const auto result = co_await read_aligned(block_, s_.lba * kSectorBytes, IoVec(&whole, 1));
    if (mine != epoch()) {
      co_return;
    }
    if (result) {
      advance(sectors);
    } else if (sectors > 1) {
      chunk = std::max(1U, sectors / 8);
    } else {
      note_host_error("verifying", result.error());
      fail_at(s_.lba, ata::kUnc);
      co_return;
    }
  }
  complete_with_interrupt();
}

void AtaDisk::begin_flush() { run(flush()); }

Task<void> AtaDisk::flush() {
  const auto mine = epoch();
  Result<void> result;
  if (!block_.read_only()) {
    result = co_await block_.flush();
  }
  if (mine != epoch()) {
    co_return;
  }
  if (result) {
    complete_with_interrupt();
  } else {
    note_host_error("flushing", result.error());
    abort_command();
  }
}

}  // namespace whistler
