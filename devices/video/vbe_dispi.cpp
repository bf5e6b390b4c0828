#include "devices/video/vbe_dispi.hpp"

#include <algorithm>

namespace whistler {
namespace {

constexpr std::uint16_t kFirstId = 0xB0C0;
constexpr std::uint16_t kLastId = 0xB0C5;
constexpr std::uint16_t kMaxBpp = 32;

bool is_depth(std::uint16_t bpp) {
  return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

}  // namespace

std::uint16_t VbeDispi::read(std::uint16_t index) const {
  if (index == kVideoMemory64K) {
    return static_cast<std::uint16_t>(vram_size_ >> 16);
  }
  if (index > kVideoMemory64K) {
    return 0;
  }
  if ((state_.regs[kEnable] & kGetCaps) != 0) {
    switch (index) {
      case kXres: return kMaxWidth;
      case kYres: return kMaxHeight;
      case kBpp: return kMaxBpp;
      default: break;
    }
  }
  return state_.regs[index];
}

bool VbeDispi::write(std::uint16_t index, std::uint16_t value) {
  auto& regs = state_.regs;
  switch (index) {
    case kId:
      if (value >= kFirstId && value <= kLastId) {
        regs[kId] = value;
      }
      return false;
    case kBank: {
      // One bank of a planar mode is 64 KiB of each of four planes.
      const auto banks = static_cast<std::uint16_t>((vram_size_ >> 16) / (planar() ? 4 : 1));
      regs[kBank] = value & static_cast<std::uint16_t>(banks - 1);
      return false;
    }
    case kEnable: {
      const bool entered = (value & kEnabled) != 0 && !enabled();
      regs[kEnable] = value;
      regs[kBank] = 0;
      if (entered) {
        regs[kVirtWidth] = 0;  // becomes the width
        regs[kXOffset] = 0;
        regs[kYOffset] = 0;
      }
      make_fit();
      return entered;
    }
    case kXres:
    case kYres:
    case kBpp:
    case kVirtWidth:
    case kXOffset:
    case kYOffset:
      regs[index] = value;
      make_fit();
      return false;
    default: return false;  // the virtual height follows from the width; the memory size is fixed
  }
}

std::uint32_t VbeDispi::bytes_of(std::uint32_t pixels) const {
  return planar() ? pixels / 8 * 4 : pixels * ((bpp() + 7) / 8);
}

std::uint32_t VbeDispi::start() const {
  return state_.regs[kYOffset] * pitch() + bytes_of(state_.regs[kXOffset]);
}

void VbeDispi::make_fit() {
  if (!enabled()) {
    return;
  }
  auto& regs = state_.regs;
  if (!is_depth(regs[kBpp])) {
    regs[kBpp] = 8;
  }
  const auto widest = static_cast<std::uint16_t>(kMaxWidth);
  regs[kXres] = std::clamp<std::uint16_t>(regs[kXres] & 0xFFF8, 8, widest);
  regs[kVirtWidth] = std::clamp<std::uint16_t>(regs[kVirtWidth] & 0xFFF8, regs[kXres], widest);
  // A line takes 64000 bytes at the most and the memory is 1 MiB at the least, so there is room for one.
  const std::uint64_t room = vram_size_ / pitch();
  regs[kYres] = std::clamp<std::uint16_t>(
      regs[kYres], 1, static_cast<std::uint16_t>(std::min<std::uint64_t>(room, kMaxHeight)));
  regs[kVirtHeight] = static_cast<std::uint16_t>(std::min<std::uint64_t>(room, 0xFFFF));
  regs[kXOffset] = std::min(regs[kXOffset], widest);
  if (std::uint64_t{start()} + std::uint64_t{height()} * pitch() > vram_size_) {
    regs[kYOffset] = 0;
    if (std::uint64_t{start()} + std::uint64_t{height()} * pitch() > vram_size_) {
      regs[kXOffset] = 0;
    }
  }
}

void VbeDispi::load(const State& state) {
  state_ = state;
  state_.regs[kId] = std::clamp(state.regs[kId], kFirstId, kLastId);
  make_fit();
  write(kBank, state.regs[kBank]);
}

}  // namespace whistler
