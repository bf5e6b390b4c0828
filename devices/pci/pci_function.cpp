#include "devices/pci/pci_function.hpp"

#include "base/bytes.hpp"

namespace whistler {
namespace {

unsigned bar_offset(unsigned index) {
  return index == PciFunction::kRomBar ? kPciRomBar : kPciBar0 + 4 * index;
}

bool touches_decoding(unsigned offset, unsigned width) {
  const auto within = [&](unsigned first, unsigned last) { return offset <= last && offset + width > first; };
  return within(kPciCommand, kPciCommand + 1) || within(kPciBar0, kPciBar0 + 23) ||
         within(kPciRomBar, kPciRomBar + 3);
}

}  // namespace

PciFunction::PciFunction(const PciIds& ids) {
  set_register(kPciVendorId, 2, ids.vendor, 0);
  set_register(kPciDeviceId, 2, ids.device, 0);
  set_register(kPciCommand, 2, 0,
               kPciCommandIo | kPciCommandMemory | kPciCommandMaster | 0x0140 | kPciCommandIntxDisable);
  set_register(kPciRevision, 1, ids.revision, 0);
  set_register(kPciClass, 2, ids.class_code & 0xFFFF, 0);
  set_register(kPciClass + 2, 1, ids.class_code >> 16, 0);
  set_register(kPciLatency - 1, 2, 0, 0xFFFF);  // cache line size and latency timer: plain storage
  set_register(kPciHeaderType, 1, ids.multifunction ? 0x80 : 0x00, 0);
  set_register(kPciSubsystemVendor, 2, ids.subsystem_vendor, 0);
  set_register(kPciSubsystemId, 2, ids.subsystem, 0);
  set_register(kPciInterruptLine, 1, 0, 0xFF);
}

std::uint32_t PciFunction::config_read(unsigned offset, unsigned width) const {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < width && offset + i < config_.bytes.size(); ++i) {
    value |= std::uint32_t{config_.bytes[offset + i]} << (8 * i);
  }
  return value;
}

void PciFunction::apply(unsigned offset, std::uint8_t value) {
  auto& byte = config_.bytes[offset];
  byte = static_cast<std::uint8_t>((byte & ~writable_[offset]) | (value & writable_[offset]));
  byte = static_cast<std::uint8_t>(byte & ~(value & clears_[offset]));
}

void PciFunction::config_write(unsigned offset, unsigned width, std::uint32_t value) {
  for (unsigned i = 0; i < width && offset + i < config_.bytes.size(); ++i) {
    apply(offset + i, static_cast<std::uint8_t>(value >> (8 * i)));
  }
  if (touches_decoding(offset, width)) {
    update_intx();
    if (decoding_changed_) {
      decoding_changed_();
    }
  }
  config_written(offset, width);
}

std::optional<std::uint64_t> PciFunction::bar_address(unsigned index) const {
  const PciBar& bar = bars_[index];
  if (bar.size == 0) {
    return std::nullopt;
  }
  const auto value = config_read(bar_offset(index), 4);
  const bool io = bar.kind == PciBar::Kind::kIo;
  if ((command() & (io ? kPciCommandIo : kPciCommandMemory)) == 0 ||
      (bar.kind == PciBar::Kind::kRom && (value & 1) == 0)) {
    return std::nullopt;
  }
  const std::uint32_t address = value & ~(bar.size - 1);
  // Size probing leaves all ones behind; 0 is "not assigned". Neither is decoded, and no I/O port is above 64
  // KiB.
  const bool unassigned =
      address == 0 || std::uint64_t{address} + bar.size > 0xFFFFFFFF || (io && address > 0xFFFF);
  return unassigned ? std::nullopt : std::optional<std::uint64_t>(address);
}

void PciFunction::connect(IrqLine intx, std::function<void()> decoding_changed) {
  intx_ = intx;
  decoding_changed_ = std::move(decoding_changed);
}

void PciFunction::set_bar(unsigned index, const PciBar& bar) {
  bars_[index] = bar;
  std::uint32_t flags = 0;
  std::uint32_t writable = ~(bar.size - 1);
  switch (bar.kind) {
    case PciBar::Kind::kIo: flags = 1; break;
    case PciBar::Kind::kRegisters:
    case PciBar::Kind::kMemory: flags = bar.prefetchable ? 8 : 0; break;
    case PciBar::Kind::kRom: writable |= 1; break;
  }
  set_register(bar_offset(index), 4, flags, writable);
}

void PciFunction::set_interrupt_pin(std::uint8_t pin) { set_register(kPciInterruptPin, 1, pin, 0); }

void PciFunction::set_register(unsigned offset, unsigned width, std::uint32_t value, std::uint32_t writable,
                               std::uint32_t write_one_clears) {
  for (unsigned i = 0; i < width; ++i) {
    config_.bytes[offset + i] = power_on_[offset + i] = static_cast<std::uint8_t>(value >> (8 * i));
    writable_[offset + i] = static_cast<std::uint8_t>(writable >> (8 * i));
    clears_[offset + i] = static_cast<std::uint8_t>(write_one_clears >> (8 * i));
  }
}

void PciFunction::poke(unsigned offset, unsigned width, std::uint32_t value) {
  for (unsigned i = 0; i < width; ++i) {
    config_.bytes[offset + i] = static_cast<std::uint8_t>(value >> (8 * i));
  }
}

std::uint16_t PciFunction::command() const { return load_le<std::uint16_t>(&config_.bytes[kPciCommand]); }

void PciFunction::set_intx(bool level) {
  config_.intx = level;
  update_intx();
}

void PciFunction::update_intx() {
  auto& status = config_.bytes[kPciStatus];
  status =
      static_cast<std::uint8_t>(config_.intx ? status | kPciStatusInterrupt : status & ~kPciStatusInterrupt);
  intx_.set(config_.intx && (command() & kPciCommandIntxDisable) == 0);
}

void PciFunction::reset_config() {
  config_.bytes = power_on_;
  config_.intx = false;
  update_intx();
  if (decoding_changed_) {
    decoding_changed_();
  }
}

void PciFunction::load_config(const Config& config) {
  for (std::size_t i = 0; i < config.bytes.size(); ++i) {
    const auto free = static_cast<std::uint8_t>(writable_[i] | clears_[i]);
    config_.bytes[i] = static_cast<std::uint8_t>((config_.bytes[i] & ~free) | (config.bytes[i] & free));
  }
  config_.intx = config.intx;
  update_intx();
  if (decoding_changed_) {
    decoding_changed_();
  }
}

}  // namespace whistler
