#include "devices/ide/ide_drive.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/bytes.hpp"

namespace whistler {
namespace {

constexpr std::size_t kHostPiecesMax = 512;  // the host takes at most 1024 a call

/// Memory at an address the device accepts.
class AlignedBuffer {
 public:
  AlignedBuffer(std::size_t bytes, std::size_t alignment) : storage_(bytes + alignment) {
    const auto at = reinterpret_cast<std::uintptr_t>(storage_.data());
    span_ = std::span(storage_).subspan(align_up(at, std::bit_ceil(alignment)) - at, bytes);
  }
  [[nodiscard]] std::span<std::uint8_t> span() const { return span_; }
  [[nodiscard]] iovec vec() const { return {span_.data(), span_.size()}; }

 private:
  std::vector<std::uint8_t> storage_;
  std::span<std::uint8_t> span_;
};

bool acceptable(const BlockDevice& device, std::span<const iovec> pieces) {
  const std::uintptr_t mask = device.request_alignment() - 1;
  return pieces.size() <= kHostPiecesMax &&
         (mask == 0 || std::ranges::all_of(pieces, [mask](const iovec& piece) {
            return ((reinterpret_cast<std::uintptr_t>(piece.iov_base) | piece.iov_len) & mask) == 0;
          }));
}

}  // namespace

std::uint32_t IdeDrive::read_data(unsigned width) {
  if (transfer_.phase != IdeTransfer::Phase::kPioIn) {
    return 0;
  }
  const std::uint8_t* const from = transfer_.buffer.data() + transfer_.position;
  const std::uint32_t left = transfer_.end - transfer_.position;
  if (width == 2 && left > 2) {  // nearly every access there is
    transfer_.position += 2;
    return load_le<std::uint16_t>(from);
  }
  if (width == 4 && left > 4) {
    transfer_.position += 4;
    return load_le<std::uint32_t>(from);
  }
  const auto length = std::min(width, left);
  std::uint32_t value = 0;
  std::memcpy(&value, from, length);
  transfer_.position += length;
  if (transfer_.position == transfer_.end) {
    pio_block_done();
  }
  return swap_to<std::endian::little>(value);
}

void IdeDrive::write_data(unsigned width, std::uint32_t value) {
  if (transfer_.phase != IdeTransfer::Phase::kPioOut) {
    return;
  }
  const auto length = std::min(width, transfer_.end - transfer_.position);
  value = swap_to<std::endian::little>(value);
  std::memcpy(&transfer_.buffer[transfer_.position], &value, length);
  transfer_.position += length;
  if (transfer_.position == transfer_.end) {
    pio_block_done();
  }
}

std::size_t IdeDrive::short_of_end(IdeTransfer::Phase phase, unsigned width, std::size_t wanted) const {
  const std::size_t left = transfer_.end - transfer_.position;
  if (transfer_.phase != phase || left <= width) {
    return 0;
  }
  return std::min(wanted, left - 1) / width * width;
}

void IdeDrive::read_data_many(unsigned width, std::span<std::uint8_t> to) {
  while (to.size() >= width) {
    const std::size_t bulk = short_of_end(IdeTransfer::Phase::kPioIn, width, to.size());
    if (bulk != 0) {
      std::memcpy(to.data(), &transfer_.buffer[transfer_.position], bulk);
      transfer_.position += static_cast<std::uint32_t>(bulk);
      to = to.subspan(bulk);
    }
    if (to.size() >= width) {
      store_little(to.data(), width, read_data(width));  // ends the block, or there is none
      to = to.subspan(width);
    }
  }
}

void IdeDrive::write_data_many(unsigned width, std::span<const std::uint8_t> from) {
  while (from.size() >= width) {
    const std::size_t bulk = short_of_end(IdeTransfer::Phase::kPioOut, width, from.size());
    if (bulk != 0) {
      std::memcpy(&transfer_.buffer[transfer_.position], from.data(), bulk);
      transfer_.position += static_cast<std::uint32_t>(bulk);
      from = from.subspan(bulk);
    }
    if (from.size() >= width) {
      write_data(width, static_cast<std::uint32_t>(load_little(from.data(), width)));
      from = from.subspan(width);
    }
  }
}

void IdeDrive::bus_master_started() {
  if (transfer_.phase == IdeTransfer::Phase::kDmaWait) {
    dma_go();
  }
}

void IdeDrive::soft_reset() { give_up(ata::kBsy); }

void IdeDrive::start_pio(IdeTransfer::Phase phase, std::size_t end) {
  transfer_.phase = phase;
  transfer_.end = static_cast<std::uint32_t>(end);
  regs_.STATUS = ata::kReady | ata::kDrq;
}

void IdeDrive::start_pio_out(std::size_t bytes) {
  transfer_.buffer.assign(bytes, 0);
  transfer_.position = 0;
  start_pio(IdeTransfer::Phase::kPioOut, bytes);
}

void IdeDrive::wait_for_dma(std::uint8_t waiting) {
  transfer_.phase = IdeTransfer::Phase::kDmaWait;
  regs_.STATUS = waiting;
  if (host_.bus_master().active()) {
    dma_go();
  }
}

void IdeDrive::run(Task<void> work) {
  transfer_.phase = IdeTransfer::Phase::kBusy;
  regs_.STATUS = ata::kReady | ata::kBsy;
  spawn(std::move(work), [this, pass = gate_.enter()] { io_ended(); });
}

void IdeDrive::io_ended() {
  const bool last =
      gate_.inside() == 1;  // who drains is woken after this, and must find the registers settled
  if (giving_up_ && last) {
    giving_up_ = false;
    regs_.STATUS = status_after_;
  }
}

void IdeDrive::complete() {
  transfer_.phase = IdeTransfer::Phase::kIdle;
  regs_.ERROR = 0;
  regs_.STATUS = ata::kReady;
}

void IdeDrive::fail_command(std::uint8_t error) {
  transfer_.phase = IdeTransfer::Phase::kIdle;
  regs_.ERROR = error;
  regs_.STATUS = ata::kReady | ata::kErr;
}

void IdeDrive::complete_with_interrupt() {
  complete();
  host_.raise_interrupt();
}

void IdeDrive::fail_with_interrupt(std::uint8_t error) {
  fail_command(error);
  host_.raise_interrupt();
}

void IdeDrive::give_up(std::uint8_t status) {
  ++epoch_;
  if (transfer_.phase == IdeTransfer::Phase::kBusy) {
    host_.bus_master().abort();
  }
  transfer_ = {};
  giving_up_ = !idle();
  status_after_ = status;
  regs_.STATUS = giving_up_ ? ata::kBsy : status;
}

Task<Result<void>> IdeDrive::read_aligned(BlockDevice& device, std::uint64_t offset, IoVec to) {
  if (acceptable(device, to)) {
    auto result = co_await device.readv(offset, to);
    co_return result;
  }
  const AlignedBuffer bounce(iovec_bytes(to), device.request_alignment());
  const iovec whole = bounce.vec();
  auto result = co_await device.readv(offset, IoVec(&whole, 1));
  if (result) {
    scatter(to, bounce.span());
  }
  co_return result;
}

Task<Result<void>> IdeDrive::write_aligned(BlockDevice& device, std::uint64_t offset, IoVec from,
                                           WriteFlags flags) {
  if (acceptable(device, from)) {
    auto result = co_await device.writev(offset, from, flags);
    co_return result;
  }
  const AlignedBuffer bounce(iovec_bytes(from), device.request_alignment());
  gather(from, bounce.span());
  const iovec whole = bounce.vec();
  auto result = co_await device.writev(offset, IoVec(&whole, 1), flags);
  co_return result;
}

Result<void> IdeDrive::check(const IdeTransfer& transfer) const {
  if (!idle()) {
    return fail(ErrorCode::kBusy, "ide: cannot load a drive with requests in flight; drain it first");
  }
  using Phase = IdeTransfer::Phase;
  const bool pio = transfer.phase == Phase::kPioIn || transfer.phase == Phase::kPioOut;
  const bool sound = (pio || transfer.phase == Phase::kIdle || transfer.phase == Phase::kDmaWait) &&
                     transfer.buffer.size() <= IdeTransfer::kBufferMax &&
                     transfer.end <= transfer.buffer.size() && transfer.position <= transfer.end &&
                     (!pio || transfer.position < transfer.end);
  return sound ? Result<void>{} : fail(ErrorCode::kCorrupt, "ide: the saved transfer contradicts itself");
}

void IdeDrive::load_transfer(const IdeTransfer& transfer) {
  ++epoch_;
  giving_up_ = false;
  transfer_ = transfer;
}

void put_ata_string(std::span<std::uint8_t> to, std::string_view text) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    const char c = i < text.size() ? text[i] : ' ';
    to[i ^ 1] = c >= ' ' && c <= '~' ? static_cast<std::uint8_t>(c) : std::uint8_t{'?'};
  }
}

void put_identify_checksum(std::span<std::uint8_t, 512> page) {
  page[510] = 0xA5;
  page[511] = 0;
  std::uint8_t sum = 0;
  for (const auto byte : page) {
    sum = static_cast<std::uint8_t>(sum + byte);
  }
  page[511] = static_cast<std::uint8_t>(-sum);
}

}  // namespace whistler
