#include "devices/ide/piix3_ide.hpp"

namespace whistler {
namespace {

constexpr unsigned kIdetim = 0x40;  // primary 0x40-0x41, secondary 0x42-0x43
constexpr unsigned kSidetim = 0x44;
constexpr unsigned kBusMasterBar = 4;
constexpr unsigned kBusMasterBytes = 16;

constexpr PciIds kIds{.vendor = 0x8086, .device = 0x7010, .class_code = 0x010180};

}  // namespace

Piix3Ide::Piix3Ide(const GuestMemory& memory, IrqLine irq14, IrqLine irq15, const Drives& drives)
    : PciFunction(kIds) {
  set_register(kIdetim, 4, 0, 0xF3FFF3FF);
  set_register(kSidetim, 1, 0, 0xFF);
  set_register(kPciStatus, 2, 0x0280, 0, 0x3800);  // fast back-to-back, medium DEVSEL
  set_bar(kBusMasterBar, {.kind = PciBar::Kind::kIo, .size = kBusMasterBytes, .handler = this});
  channels_[0] = std::make_unique<IdeChannel>(memory, irq14, drives[0]);
  channels_[1] = std::make_unique<IdeChannel>(memory, irq15, drives[1]);
  update_bus_mastering();
}

void Piix3Ide::update_bus_mastering() {
  for (const auto& channel : channels_) {
    channel->bus_master().set_enabled((command() & kPciCommandMaster) != 0);
  }
}

void Piix3Ide::config_written(unsigned offset, unsigned width) {
  if (offset <= kPciCommand && offset + width > kPciCommand) {
    update_bus_mastering();
  }
}

std::uint64_t Piix3Ide::read(std::uint64_t offset, unsigned width) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < width && offset + i < kBusMasterBytes; ++i) {
    const auto at = static_cast<unsigned>(offset) + i;
    value |= std::uint64_t{channels_[at / 8]->bus_master().read(at % 8)} << (8 * i);
  }
  return value;
}

void Piix3Ide::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  for (unsigned i = 0; i < width && offset + i < kBusMasterBytes; ++i) {
    const auto at = static_cast<unsigned>(offset) + i;
    channels_[at / 8]->bus_master().write(at % 8, static_cast<std::uint8_t>(value >> (8 * i)));
  }
}

void Piix3Ide::reset() {
  reset_config();
  for (const auto& channel : channels_) {
    channel->reset();
  }
  update_bus_mastering();
}

void Piix3Ide::save(StateWriter& writer) const {
  writer.put(State{.pci = config(), .channels = {channels_[0]->state(), channels_[1]->state()}});
}

Result<void> Piix3Ide::load(const StateReader& reader) {
  State state;
  if (auto read = reader.get(state); !read) {
    return read;
  }
  for (unsigned i = 0; i < kChannels; ++i) {
    if (auto sound = channels_[i]->check(state.channels[i]); !sound) {
      return sound;
    }
  }
  load_config(state.pci);
  for (unsigned i = 0; i < kChannels; ++i) {
    channels_[i]->load(state.channels[i]);
  }
  update_bus_mastering();
  return {};
}

Task<void> Piix3Ide::drain() {
  for (const auto& channel : channels_) {
    co_await channel->drain();
  }
}

}  // namespace whistler
