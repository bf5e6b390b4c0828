#include "devices/pci/pci_bus.hpp"

#include <fmt/format.h>

#include "base/log.hpp"

namespace whistler {
namespace {

constexpr std::uint32_t kConfigEnable = 0x80000000;
constexpr unsigned kConfigData = 4;  // offset of 0xCFC from 0xCF8

bool is_memory(const PciBar& bar) {
  return bar.kind == PciBar::Kind::kMemory || bar.kind == PciBar::Kind::kRom;
}

}  // namespace

PciBus::PciBus(Bus& ports, Bus& memory, MemoryMapper& mapper, IrqSink& pirq)
    : ports_(ports), memory_(memory), mapper_(mapper) {
  for (unsigned wire = 0; wire < pirq_.size(); ++wire) {
    pirq_[wire] = std::make_unique<IrqOr>(IrqLine(pirq, wire));
  }
}

Result<void> PciBus::attach(unsigned slot, unsigned number, PciFunction& function, std::string_view owner) {
  Socket& socket = sockets_[(slot & 31) * 8 + (number & 7)];
  if (socket.function != nullptr) {
    return fail(ErrorCode::kExists,
                fmt::format("pci: {} wants 00:{:02x}.{}, where {} sits", owner, slot, number, socket.owner));
  }
  socket.function = &function;
  socket.owner = owner;
  IrqLine intx;
  if (const unsigned pin = function.interrupt_pin(); pin != 0) {
    intx = IrqLine(*pirq_[(slot + pin + 2) % 4], slot * 2 % 64 + (number & 1));
  }
  function.connect(intx, [this] { remap(); });
  remap();
  return {};
}

void PciBus::reset() { state_ = {}; }

void PciBus::save(StateWriter& writer) const { writer.put(state_); }

Result<void> PciBus::load(const StateReader& reader) { return reader.get(state_); }

PciFunction* PciBus::addressed() const {
  const bool enabled = (state_.CONFIG_ADDRESS & kConfigEnable) != 0;
  const bool bus_zero = ((state_.CONFIG_ADDRESS >> 16) & 0xFF) == 0;
  return enabled && bus_zero ? sockets_[(state_.CONFIG_ADDRESS >> 8) & 0xFF].function : nullptr;
}

unsigned PciBus::register_at(std::uint64_t offset) const {
  return (state_.CONFIG_ADDRESS & 0xFF) | (static_cast<unsigned>(offset - kConfigData) & 3);
}

std::uint64_t PciBus::read(std::uint64_t offset, unsigned width) {
  if (offset >= kConfigData) {
    const PciFunction* function = addressed();
    return function != nullptr ? function->config_read(register_at(offset), width) : all_ones(width);
  }
  // Only a 32-bit access is to CONFIG_ADDRESS; others pass to the bus, where nobody answers.
  return offset == 0 && width == 4 ? state_.CONFIG_ADDRESS : all_ones(width);
}

void PciBus::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  if (offset >= kConfigData) {
    if (PciFunction* function = addressed(); function != nullptr) {
      function->config_write(register_at(offset), width, static_cast<std::uint32_t>(value));
    }
  } else if (offset == 0 && width == 4) {
    state_.CONFIG_ADDRESS = static_cast<std::uint32_t>(value) & 0x80FFFFFF;
  }
}

std::uint32_t PciBus::config_read(unsigned slot, unsigned number, unsigned offset, unsigned width) const {
  const PciFunction* function = sockets_[(slot & 31) * 8 + (number & 7)].function;
  return function != nullptr ? function->config_read(offset & 0xFF, width)
                             : static_cast<std::uint32_t>(all_ones(width));
}

void PciBus::config_write(unsigned slot, unsigned number, unsigned offset, unsigned width,
                          std::uint32_t value) {
  if (PciFunction* function = sockets_[(slot & 31) * 8 + (number & 7)].function; function != nullptr) {
    function->config_write(offset & 0xFF, width, value);
  }
}

// Guests move BARs one register at a time, over each other on the way. So every change takes those that moved
// off the buses first and then puts down whatever is decoded and not placed yet: a BAR that found its place
// taken gets it as soon as it is free.
void PciBus::remap() {
  for (Socket& socket : sockets_) {
    if (socket.function == nullptr) {
      continue;
    }
    for (unsigned index = 0; index < socket.decoded.size(); ++index) {
      const PciBar& bar = socket.function->bars()[index];
      if (socket.decoded[index] && socket.decoded[index] != socket.function->bar_address(index)) {
        socket.decoded[index].reset();
        if (is_memory(bar)) {
          mapper_.unmap(bar.slot);
        } else {
          (bar.kind == PciBar::Kind::kIo ? ports_ : memory_).unmap(*bar.handler);
        }
      }
    }
  }
  for (Socket& socket : sockets_) {
    if (socket.function == nullptr) {
      continue;
    }
    for (unsigned index = 0; index < socket.decoded.size(); ++index) {
      const auto address = socket.function->bar_address(index);
      if (address && !socket.decoded[index]) {
        place(socket, index, socket.function->bars()[index], *address);
      }
    }
  }
}

void PciBus::place(Socket& socket, unsigned index, const PciBar& bar, std::uint64_t address) {
  if (is_memory(bar)) {
    mapper_.map(
        bar.slot, address, bar.memory,
        bar.kind == PciBar::Kind::kRom ? MemoryMapper::Access::kReadOnly : MemoryMapper::Access::kLogged);
    socket.decoded[index] = address;
    return;
  }
  Bus& bus = bar.kind == PciBar::Kind::kIo ? ports_ : memory_;
  if (auto mapped = bus.map({.base = address, .length = bar.size, .max_width = bar.max_width}, *bar.handler,
                            socket.owner);
      mapped) {
    socket.decoded[index] = address;
  } else {
    log_once(LogLevel::kDebug, fmt::format("bar {} {}", socket.owner, address), mapped.error().message);
  }
}

}  // namespace whistler
