#include "devices/legacy/dma_8237.hpp"

namespace whistler {

namespace {

// Registers 8-15 (datasheet, figure 6).
constexpr unsigned kCommandStatus = 8;
constexpr unsigned kRequest = 9;
constexpr unsigned kSingleMask = 10;
constexpr unsigned kMode = 11;
constexpr unsigned kClearFlipFlop = 12;
constexpr unsigned kMasterClear = 13;
constexpr unsigned kClearMask = 14;
constexpr unsigned kAllMasks = 15;

constexpr std::uint8_t kCommandDisable = 0x04;
constexpr std::uint8_t kModeTransfer = 0x0C;
constexpr std::uint8_t kModeVerify = 0x00;
constexpr std::uint8_t kModeToMemory = 0x04;
constexpr std::uint8_t kModeFromMemory = 0x08;
constexpr std::uint8_t kModeAutoinitialise = 0x10;
constexpr std::uint8_t kModeDecrement = 0x20;
constexpr std::uint8_t kModeCascade = 0xC0;

/// The page register of each channel, as its offset in the page registers. Channel 4 is the cascade.
constexpr std::array<unsigned, 8> kPageOfChannel = {0x7, 0x3, 0x1, 0x2, 0xF, 0xB, 0x9, 0xA};

void set_bit(std::uint8_t& bits, unsigned number, bool value) {
  const auto bit = static_cast<std::uint8_t>(1U << number);
  bits = static_cast<std::uint8_t>(value ? bits | bit : bits & ~bit);
}

void set_half(std::uint16_t& word, bool high, std::uint8_t value) {
  word = static_cast<std::uint16_t>(high ? (word & 0x00FF) | (value << 8) : (word & 0xFF00) | value);
}

}  // namespace

Dma8237::Dma8237(const GuestMemory& memory) : memory_(memory) {}

std::uint64_t Dma8237::ControllerPorts::read(std::uint64_t offset, unsigned /*width*/) {
  const auto number = static_cast<unsigned>(offset >> shift_) & 15;
  if (number < kCommandStatus) {
    return read_address_or_count(number);
  }
  switch (number) {
    case kCommandStatus: {
      const auto status = static_cast<std::uint8_t>(controller_.request << 4 | controller_.terminal_counts);
      controller_.terminal_counts = 0;
      return status;
    }
    case kMasterClear: return controller_.temporary;
    case kAllMasks: return controller_.mask;
    default: return 0;  // write-only
  }
}

std::uint8_t Dma8237::ControllerPorts::read_address_or_count(unsigned number) {
  const auto& channel = controller_.channels[number / 2];
  const std::uint16_t word = number % 2 == 0 ? channel.address : channel.count;
  const bool high = controller_.high_byte_next;
  controller_.high_byte_next = !high;
  return static_cast<std::uint8_t>(high ? word >> 8 : word);
}

void Dma8237::ControllerPorts::write(std::uint64_t offset, unsigned /*width*/, std::uint64_t value) {
  const auto number = static_cast<unsigned>(offset >> shift_) & 15;
  const auto byte = static_cast<std::uint8_t>(value);
  if (number < kCommandStatus) {
    write_address_or_count(number, byte);
  } else {
    write_control(number, byte);
  }
}

void Dma8237::ControllerPorts::write_address_or_count(unsigned number, std::uint8_t value) {
  auto& channel = controller_.channels[number / 2];
  const bool high = controller_.high_byte_next;
  controller_.high_byte_next = !high;
  if (number % 2 == 0) {
    set_half(channel.base_address, high, value);
    set_half(channel.address, high, value);
  } else {
    set_half(channel.base_count, high, value);
    set_half(channel.count, high, value);
  }
}

void Dma8237::ControllerPorts::write_control(unsigned number, std::uint8_t value) {
  switch (number) {
    case kCommandStatus: controller_.command = value; break;
    case kRequest: set_bit(controller_.request, value & 3, (value & 4) != 0); break;
    case kSingleMask: set_bit(controller_.mask, value & 3, (value & 4) != 0); break;
    case kMode: controller_.channels[value & 3].mode = value & 0xFC; break;
    case kClearFlipFlop: controller_.high_byte_next = false; break;
    case kMasterClear:
      controller_.command = 0;
      controller_.request = 0;
      controller_.terminal_counts = 0;
      controller_.temporary = 0;
      controller_.high_byte_next = false;
      controller_.mask = 0x0F;
      break;
    case kClearMask: controller_.mask = 0; break;
    case kAllMasks: controller_.mask = value & 0x0F; break;
    default: break;
  }
}

std::uint64_t Dma8237::physical_address(unsigned channel) const {
  const auto page_register = kPageOfChannel[channel];
  const std::uint64_t address = state_.controllers[channel / 4].channels[channel % 4].address;
  const std::uint64_t high = std::uint64_t{state_.high_pages[page_register]} << 24;
  const std::uint64_t page = state_.pages[page_register];
  // Word channels count words; bit 0 of their page register is not connected.
  return channel < 4 ? high | page << 16 | address : high | (page & 0xFE) << 16 | address << 1;
}

Dma8237::Moved Dma8237::transfer(unsigned channel, Direction direction, std::span<std::uint8_t> bytes) {
  if (channel > 7 || channel == 4) {
    return {};
  }
  auto& controller = state_.controllers[channel / 4];
  auto& state = controller.channels[channel % 4];
  const unsigned kind = state.mode & kModeTransfer;
  const unsigned wanted = direction == Direction::kToMemory ? kModeToMemory : kModeFromMemory;
  const bool masked = (controller.mask >> (channel % 4) & 1) != 0;
  if (masked || (controller.command & kCommandDisable) != 0 || (state.mode & kModeCascade) == kModeCascade ||
      (kind != wanted && kind != kModeVerify)) {
    return {};
  }
  const std::size_t unit = channel < 4 ? 1 : 2;
  Moved moved;
  while (moved.bytes + unit <= bytes.size() && !moved.terminal_count) {
    const auto piece = bytes.subspan(moved.bytes, unit);
    if (kind == kModeToMemory) {
      memory_.write(physical_address(channel), piece);
    } else if (kind == kModeFromMemory) {
      memory_.read(physical_address(channel), piece);
    }
    moved.bytes += unit;
    state.address = static_cast<std::uint16_t>((state.mode & kModeDecrement) != 0 ? state.address - 1
                                                                                  : state.address + 1);
    moved.terminal_count = state.count == 0;
    --state.count;  // ends at 0xFFFF
  }
  if (moved.terminal_count) {
    set_bit(controller.terminal_counts, channel % 4, true);
    set_bit(controller.request, channel % 4, false);
    if ((state.mode & kModeAutoinitialise) != 0) {
      state.address = state.base_address;
      state.count = state.base_count;
    } else {
      set_bit(controller.mask, channel % 4, true);
    }
  }
  return moved;
}

void Dma8237::reset() { state_ = {}; }

Result<void> Dma8237::load(const StateReader& reader) {
  State loaded;
  if (auto done = reader.get(loaded); !done) {
    return done;
  }
  for (auto& controller : loaded.controllers) {
    controller.mask &= 0x0F;
    controller.request &= 0x0F;
    controller.terminal_counts &= 0x0F;
  }
  state_ = loaded;
  return {};
}

}  // namespace whistler
