#include "devices/ide/piix_ide.hpp"

namespace whistler {
namespace {

constexpr unsigned kIdetim = 0x40;  // primary 0x40-0x41, secondary 0x42-0x43
constexpr unsigned kSidetim = 0x44;
constexpr unsigned kUdmactl = 0x48;  // PIIX4: Ultra DMA on for each of the four drives
constexpr unsigned kUdmatim = 0x4A;  // PIIX4: their Ultra DMA modes
constexpr unsigned kBusMasterBar = 4;
constexpr unsigned kBusMasterBytes = 16;

PciIds ids_of(PiixIdeModel model) {
  PciIds ids{.vendor = 0x8086, .device = 0x7010, .class_code = 0x010180};
  if (model == PiixIdeModel::kPiix4) {
    ids.device = 0x7111;
    ids.revision = 1;
  }
  return ids;
}

}  // namespace

PiixIde::PiixIde(const GuestMemory& memory, IrqLine irq14, IrqLine irq15, const Drives& drives,
                 PiixIdeModel model)
    : PciFunction(ids_of(model)) {
  set_register(kIdetim, 4, 0, 0xF3FFF3FF);
  set_register(kSidetim, 1, 0, 0xFF);
  if (model == PiixIdeModel::kPiix4) {
    set_register(kUdmactl, 1, 0, 0x0F);
    set_register(kUdmatim, 2, 0, 0x3333);
  }
  set_register(kPciStatus, 2, 0x0280, 0, 0x3800);  // fast back-to-back, medium DEVSEL
  set_bar(kBusMasterBar, {.kind = PciBar::Kind::kIo, .size = kBusMasterBytes, .handler = this});
  channels_[0] = std::make_unique<IdeChannel>(memory, irq14, drives[0]);
  channels_[1] = std::make_unique<IdeChannel>(memory, irq15, drives[1]);
  update_bus_mastering();
}

void PiixIde::update_bus_mastering() {
  for (const auto& channel : channels_) {
    channel->bus_master().set_enabled((command() & kPciCommandMaster) != 0);
  }
}

void PiixIde::config_written(unsigned offset, unsigned width) {
  if (offset <= kPciCommand && offset + width > kPciCommand) {
    update_bus_mastering();
  }
}

std::uint64_t PiixIde::read(std::uint64_t offset, unsigned width) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < width && offset + i < kBusMasterBytes; ++i) {
    const auto at = static_cast<unsigned>(offset) + i;
    value |= std::uint64_t{channels_[at / 8]->bus_master().read(at % 8)} << (8 * i);
  }
  return value;
}

void PiixIde::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  for (unsigned i = 0; i < width && offset + i < kBusMasterBytes; ++i) {
    const auto at = static_cast<unsigned>(offset) + i;
    channels_[at / 8]->bus_master().write(at % 8, static_cast<std::uint8_t>(value >> (8 * i)));
  }
}

void PiixIde::reset() {
  reset_config();
  for (const auto& channel : channels_) {
    channel->reset();
  }
  update_bus_mastering();
}

void PiixIde::save(StateWriter& writer) const {
  writer.put(State{.pci = config(), .channels = {channels_[0]->state(), channels_[1]->state()}});
}

Result<void> PiixIde::load(const StateReader& reader) {
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

Task<void> PiixIde::drain() {
  for (const auto& channel : channels_) {
    co_await channel->drain();
  }
}

}  // namespace whistler
