#include "devices/ide/bus_master.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/bytes.hpp"

namespace whistler {
namespace {

constexpr unsigned kDescriptorBytes = 8;
constexpr unsigned kDescriptorsMax = 0x10000 / kDescriptorBytes;  // a table does not cross a 64 KiB boundary
constexpr std::uint32_t kEndOfTable = 0x80000000;

constexpr std::uint8_t kDriveCapableBits = 0x60;  // BMISX: software's own notes

}  // namespace

std::vector<iovec> PieceCursor::take(std::uint64_t bytes) {
  std::vector<iovec> taken;
  while (bytes != 0 && !pieces_.empty()) {
    const iovec& piece = pieces_.front();
    const auto length = std::min<std::uint64_t>(bytes, piece.iov_len - used_);
    taken.push_back({static_cast<std::uint8_t*>(piece.iov_base) + used_, length});
    bytes -= length;
    used_ += length;
    if (used_ == piece.iov_len) {
      pieces_ = pieces_.subspan(1);
      used_ = 0;
    }
  }
  return taken;
}

void scatter(std::span<const iovec> pieces, std::span<const std::uint8_t> from) {
  for (const auto& piece : pieces) {
    const auto length = std::min(piece.iov_len, from.size());
    if (length != 0) {
      std::memcpy(piece.iov_base, from.data(), length);
    }
    from = from.subspan(length);
  }
}

void gather(std::span<const iovec> pieces, std::span<std::uint8_t> to) {
  for (const auto& piece : pieces) {
    const auto length = std::min(piece.iov_len, to.size());
    if (length != 0) {
      std::memcpy(to.data(), piece.iov_base, length);
    }
    to = to.subspan(length);
  }
}

std::uint8_t BusMaster::read(unsigned offset) const {
  switch (offset) {
    case 0: return state_.BMICX;
    case 2: return state_.BMISX;
    case 4:
    case 5:
    case 6:
    case 7: return static_cast<std::uint8_t>(state_.BMIDTPX >> (8 * (offset - 4)));
    default: return 0;
  }
}

void BusMaster::write(unsigned offset, std::uint8_t value) {
  switch (offset) {
    case 0: {
      const bool was_started = (state_.BMICX & kStart) != 0;
      const bool started = (value & kStart) != 0;
      state_.BMICX = value & (kStart | kToMemory);
      if (was_started && !started && !transferring_) {
        state_.BMISX &= static_cast<std::uint8_t>(~kActive);
      } else if (!was_started && started && !active()) {
        state_.BMISX |= kActive;
        if (start_hook_) {
          start_hook_();
        }
      }
      return;
    }
    case 2:
      state_.BMISX = static_cast<std::uint8_t>((value & kDriveCapableBits) | (state_.BMISX & kActive) |
                                               (state_.BMISX & ~value & (kError | kInterrupt)));
      return;
    case 4:
    case 5:
    case 6:
    case 7: {
      const unsigned shift = 8 * (offset - 4);
      state_.BMIDTPX = ((state_.BMIDTPX & ~(0xFFU << shift)) | (std::uint32_t{value} << shift)) & ~3U;
      return;
    }
    default: return;
  }
}

DmaPlan BusMaster::plan(std::uint64_t bytes, std::vector<iovec> storage) const {
  storage.clear();
  DmaPlan plan{DmaPlan::Outcome::kReady, true, std::move(storage)};
  if (!enabled_) {
    plan.outcome = DmaPlan::Outcome::kNoBus;
    return plan;
  }
  for (unsigned i = 0; bytes != 0; ++i) {
    std::array<std::uint8_t, kDescriptorBytes> descriptor{};
    if (i == kDescriptorsMax || !plan.more) {
      plan.outcome = DmaPlan::Outcome::kTooShort;
      return plan;
    }
    if (!memory_.read(std::uint64_t{state_.BMIDTPX} + i * kDescriptorBytes, descriptor)) {
      plan.outcome = DmaPlan::Outcome::kFault;
      return plan;
    }
    const std::uint64_t address = load_le<std::uint32_t>(descriptor.data()) & ~1U;
    const auto word = load_le<std::uint32_t>(descriptor.data() + 4);
    const std::uint64_t size = (word & 0xFFFE) == 0 ? 0x10000 : word & 0xFFFE;
    std::uint64_t used = 0;
    while (used < size && bytes != 0) {
      const auto ram = memory_.slice(address + used, std::min(size - used, bytes));
      if (ram.empty()) {
        plan.outcome = DmaPlan::Outcome::kFault;
        return plan;
      }
      plan.pieces.push_back({ram.data(), ram.size()});
      used += ram.size();
      bytes -= ram.size();
    }
    plan.more = (word & kEndOfTable) == 0 || used < size;
  }
  return plan;
}

void BusMaster::end(bool more) {
  transferring_ = false;
  if (!more || (state_.BMICX & kStart) == 0) {
    state_.BMISX &= static_cast<std::uint8_t>(~kActive);
  }
}

void BusMaster::fault() {
  end(false);
  state_.BMISX |= kError;
}

void BusMaster::abort() { end(true); }

void BusMaster::set_intrq(bool level) {
  if (level && !state_.intrq) {
    state_.BMISX |= kInterrupt;
  }
  state_.intrq = level;
  irq_.set(level);
}

void BusMaster::reset() { load({}); }

void BusMaster::load(const State& state) {
  transferring_ = false;
  state_ = state;
  state_.BMICX &= kStart | kToMemory;
  state_.BMISX &= kDriveCapableBits | kActive | kError | kInterrupt;
  state_.BMIDTPX &= ~3U;
  irq_.set(state_.intrq);
}

}  // namespace whistler
