#include "devices/video/planar_memory.hpp"

#include "base/bytes.hpp"

namespace whistler {
namespace {

/// Four bits as four bytes of all zeros or all ones: one for each plane.
constexpr std::uint32_t spread(unsigned planes) {
  return ((planes & 1) * 0xFFU) | ((planes >> 1 & 1) * 0xFF00U) | ((planes >> 2 & 1) * 0xFF0000U) |
         ((planes >> 3 & 1) * 0xFF000000U);
}

/// The same byte in every plane.
constexpr std::uint32_t repeat(std::uint8_t byte) { return byte * 0x01010101U; }

constexpr std::uint8_t rotate_right(std::uint8_t value, unsigned by) {
  return static_cast<std::uint8_t>(value >> by | value << (8 - by));
}

}  // namespace

PlanarMemory::Span PlanarMemory::decoded() const {
  switch (registers_.state().GR[graphics::kMiscellaneous] >> 2 & 3) {
    case 0: return {0x00000, 0x20000};
    case 1: return {0x00000, 0x10000};
    case 2: return {0x10000, 0x08000};
    default: return {0x18000, 0x08000};
  }
}

std::uint32_t PlanarMemory::byte_of(std::uint32_t n, std::uint32_t bank) const {
  // Without a bank this is a VGA with 64 KiB a plane; banks exist in VBE modes, which use all the memory.
  const std::uint32_t mask = bank == 0 ? kVgaSize - 1 : static_cast<std::uint32_t>(vram_.size() - 1);
  return ((n + bank) * 4) & mask;
}

std::uint8_t PlanarMemory::read(std::uint32_t position, std::uint32_t bank) {
  const auto& vga = registers_.state();
  const auto [first, size] = decoded();
  if (position - first >= size) {
    return 0xFF;
  }
  const std::uint32_t address = position - first;
  if ((vga.SR[sequencer::kMemoryMode] & 0x08) != 0) {
    return vram_[(address + bank) & (vram_.size() - 1)];
  }
  const unsigned mode = vga.GR[graphics::kGraphicsMode];
  const bool odd_even = (mode & 0x10) != 0;
  latch_ = load_le<std::uint32_t>(&vram_[byte_of(odd_even ? address >> 1 : address, bank)]);
  if ((mode & 0x08) !=
      0) {  // read mode 1: a bit is set where all planes that matter hold the colour to compare
    const std::uint32_t differs =
        (latch_ ^ spread(vga.GR[graphics::kColorCompare])) & spread(vga.GR[graphics::kColorDontCare]);
    return static_cast<std::uint8_t>(~(differs | differs >> 8 | differs >> 16 | differs >> 24));
  }
  unsigned plane = vga.GR[graphics::kReadMapSelect] & 3;
  if (odd_even) {
    plane = (plane & 2) | (address & 1);
  }
  return static_cast<std::uint8_t>(latch_ >> (8 * plane));
}

/// What a write of `value` puts into the four planes before the map mask.
std::uint32_t PlanarMemory::operate(std::uint8_t value, unsigned mode) const {
  const auto& gr = registers_.state().GR;
  if (mode == 1) {
    return latch_;
  }
  const std::uint8_t rotated = rotate_right(value, gr[graphics::kDataRotate] & 7);
  std::uint32_t mask = repeat(gr[graphics::kBitMask]);
  std::uint32_t data = 0;
  switch (mode) {
    case 0: {
      const std::uint32_t fixed = spread(gr[graphics::kEnableSetReset]);
      data = (repeat(rotated) & ~fixed) | (spread(gr[graphics::kSetReset]) & fixed);
      break;
    }
    case 2: data = spread(value); break;
    default:  // write mode 3: the processor's byte narrows the bit mask
      data = spread(gr[graphics::kSetReset]);
      mask &= repeat(rotated);
      break;
  }
  switch (gr[graphics::kDataRotate] >> 3 & 3) {
    case 1: data &= latch_; break;
    case 2: data |= latch_; break;
    case 3: data ^= latch_; break;
    default: break;
  }
  return (data & mask) | (latch_ & ~mask);
}

void PlanarMemory::write(std::uint32_t position, std::uint32_t bank, std::uint8_t value) {
  const auto& vga = registers_.state();
  const auto [first, size] = decoded();
  if (position - first >= size) {
    return;
  }
  const std::uint32_t address = position - first;
  unsigned planes = vga.SR[sequencer::kMapMask] & 15;
  if ((vga.SR[sequencer::kMemoryMode] & 0x08) != 0) {
    if ((planes >> (address & 3) & 1) != 0) {
      const std::size_t at = (address + bank) & (vram_.size() - 1);
      vram_[at] = value;
      dirty_.mark(at, 1);
    }
    return;
  }
  // Bit 2 of the sequencer's memory mode should be the opposite of bit 4 of the graphics mode; software that
  // sets only one of them means the latter, which also decides how addresses are compacted.
  const unsigned mode = vga.GR[graphics::kGraphicsMode];
  const bool odd_even = (mode & 0x10) != 0;
  if (odd_even) {
    planes &= (address & 1) != 0 ? 0b1010 : 0b0101;
  }
  if (planes == 0) {
    return;
  }
  const std::uint32_t at = byte_of(odd_even ? address >> 1 : address, bank);
  const std::uint32_t chosen = spread(planes);
  const auto old = load_le<std::uint32_t>(&vram_[at]);
  store_le<std::uint32_t>(&vram_[at], (old & ~chosen) | (operate(value, mode & 3) & chosen));
  dirty_.mark(at, 4);
}

std::optional<LinearWindow> PlanarMemory::linear_window(std::uint32_t bank) const {
  const auto& vga = registers_.state();
  const auto [first, size] = decoded();
  const bool chained =
      (vga.SR[sequencer::kMemoryMode] & 0x08) != 0 && (vga.SR[sequencer::kMapMask] & 15) == 15;
  if (!chained || bank + std::uint64_t{size} > vram_.size()) {
    return std::nullopt;
  }
  return LinearWindow{.position = first, .offset = bank, .size = size};
}

}  // namespace whistler
