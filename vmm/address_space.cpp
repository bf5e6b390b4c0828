#include "vmm/address_space.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.hpp"
#include "base/log.hpp"

namespace whistler {

void AddressSpace::map(unsigned slot, std::uint64_t address, std::span<std::uint8_t> memory, Access access) {
  unmap(slot);
  if (memory.empty() || (address | memory.size()) % kPageSize != 0) {
    return;
  }
  const bool taken = std::ranges::any_of(windows_, [&](const auto& entry) {
    const Window& other = entry.second;
    return address < other.address + other.memory.size() && other.address < address + memory.size();
  });
  if (taken || (backend_ != nullptr && !backend_->set_slot(slot, address, memory, access))) {
    log_once(LogLevel::kWarning, fmt::format("slot {} {:x}", slot, address),
             fmt::format("memory window {} cannot be placed at {:#x}: other memory is there", slot, address));
    return;
  }
  windows_[slot] = Window{address, memory, access, true};
}

void AddressSpace::unmap(unsigned slot) {
  if (windows_.erase(slot) != 0 && backend_ != nullptr) {
    backend_->clear_slot(slot);
  }
}

void AddressSpace::collect_dirty(unsigned slot, std::span<std::uint64_t> bitmap) {
  const auto found = windows_.find(slot);
  if (found == windows_.end()) {
    return;
  }
  // Without a backend nobody tracks writes, so every page counts as written each time.
  if (backend_ == nullptr || found->second.all_dirty) {
    const auto pages = found->second.memory.size() / kPageSize;
    for (std::size_t page = 0; page < pages && page / 64 < bitmap.size(); ++page) {
      bitmap[page / 64] |= std::uint64_t{1} << (page % 64);
    }
    found->second.all_dirty = false;
  }
  if (backend_ != nullptr) {
    backend_->collect_dirty(slot, bitmap);
  }
}

const AddressSpace::Window* AddressSpace::find(std::uint64_t address) const {
  for (const auto& [slot, window] : windows_) {
    if (address - window.address < window.memory.size()) {
      return &window;
    }
  }
  return nullptr;
}

std::uint64_t AddressSpace::read(std::uint64_t address, unsigned width) {
  const Window* window = find(address);
  if (window != nullptr && address - window->address + width <= window->memory.size()) {
    std::uint64_t value = 0;
    std::memcpy(&value, &window->memory[address - window->address], width);
    return swap_to<std::endian::little>(value);
  }
  if (window == nullptr && find(address + width - 1) == nullptr) {
    return bus_.read(address, width);
  }
  std::uint64_t value = 0;  // across an edge: byte by byte
  for (unsigned i = 0; i < width; ++i) {
    const Window* at = find(address + i);
    const std::uint64_t byte =
        at != nullptr ? at->memory[address + i - at->address] : bus_.read(address + i, 1);
    value |= byte << (8 * i);
  }
  return value;
}

void AddressSpace::write(std::uint64_t address, unsigned width, std::uint64_t value) {
  const Window* window = find(address);
  if (window == nullptr && find(address + width - 1) == nullptr) {
    bus_.write(address, width, value);
    return;
  }
  if (window != nullptr && window->access == Access::kReadOnly &&
      address - window->address + width <= window->memory.size()) {
    bus_.write(address, width, value);
    return;
  }
  for (unsigned i = 0; i < width; ++i) {
    const Window* at = find(address + i);
    const auto byte = static_cast<std::uint8_t>(value >> (8 * i));
    if (at != nullptr && at->access != Access::kReadOnly) {
      at->memory[address + i - at->address] = byte;
    } else {
      bus_.write(address + i, 1, byte);
    }
  }
}

bool AddressSpace::peek(std::uint64_t address, std::span<std::uint8_t> to) const {
  while (!to.empty()) {
    const Window* window = find(address);
    if (window == nullptr) {
      return false;
    }
    const auto at = address - window->address;
    const auto length = std::min<std::size_t>(to.size(), window->memory.size() - at);
    std::memcpy(to.data(), &window->memory[at], length);
    to = to.subspan(length);
    address += length;
  }
  return true;
}

}  // namespace whistler
