#include "devices/chipset/piix4_smbus.hpp"

namespace whistler {
namespace {

constexpr std::uint8_t kHostBusy = 0x01;
constexpr std::uint8_t kDevErr = 0x04;
constexpr std::uint8_t kFailed = 0x10;
constexpr std::uint8_t kStatusEvents = 0x1E;  // written ones clear: INTER, DEV_ERR, BUS_ERR, FAILED

constexpr std::uint8_t kKill = 0x02;
constexpr std::uint8_t kStart = 0x40;
constexpr std::uint8_t kControlStored = 0x1D;  // INTEREN and SMB_CMD_PROT: START and KILL read as zero

}  // namespace

std::uint8_t Piix4Smbus::read(unsigned offset) {
  switch (offset) {
    case 0x0: {
      // A transaction is seen busy once, then over: drivers that wait for it to begin find it begun.
      const std::uint8_t seen = state_.SMBHSTSTS;
      if ((seen & kHostBusy) != 0) {
        state_.SMBHSTSTS = static_cast<std::uint8_t>((seen & ~kHostBusy) | kDevErr);
      }
      return seen;
    }
    case 0x2: state_.block_index = 0; return state_.SMBHSTCNT;
    case 0x3: return state_.SMBHSTCMD;
    case 0x4: return state_.SMBHSTADD;
    case 0x5: return state_.SMBHSTDAT0;
    case 0x6: return state_.SMBHSTDAT1;
    case 0x7: {
      const std::uint8_t value = state_.block[state_.block_index];
      advance();
      return value;
    }
    default: return 0;  // the slave port's registers, as after reset
  }
}

void Piix4Smbus::write(unsigned offset, std::uint8_t value) {
  switch (offset) {
    case 0x0:
      state_.SMBHSTSTS = static_cast<std::uint8_t>(state_.SMBHSTSTS & ~(value & kStatusEvents));
      break;
    case 0x2:
      state_.SMBHSTCNT = value & kControlStored;
      state_.block_index = 0;
      if ((value & kKill) != 0) {
        state_.SMBHSTSTS = static_cast<std::uint8_t>((state_.SMBHSTSTS & ~kHostBusy) | kFailed);
      } else if ((value & kStart) != 0) {
        state_.SMBHSTSTS |= kHostBusy;
      }
      break;
    case 0x3: state_.SMBHSTCMD = value; break;
    case 0x4: state_.SMBHSTADD = value; break;
    case 0x5: state_.SMBHSTDAT0 = value; break;
    case 0x6: state_.SMBHSTDAT1 = value; break;
    case 0x7:
      state_.block[state_.block_index] = value;
      advance();
      break;
    default: break;
  }
}

void Piix4Smbus::advance() {
  state_.block_index = static_cast<std::uint8_t>((state_.block_index + 1) % kBlockLength);
}

void Piix4Smbus::adopt(const State& state) {
  state_ = state;
  state_.block_index = state.block_index % kBlockLength;
}

}  // namespace whistler
