#include "devices/ide/ide_channel.hpp"

#include <utility>

#include "base/bytes.hpp"

namespace whistler {
namespace {

constexpr std::uint8_t kNIen = 0x02;
constexpr std::uint8_t kSrst = 0x04;
constexpr std::uint8_t kHob = 0x80;
constexpr std::uint8_t kDeviceReset = 0x08;
constexpr std::uint8_t kExecuteDiagnostic = 0x90;

}  // namespace

IdeChannel::IdeChannel(const GuestMemory& memory, IrqLine irq, const Drives& drives)
    : bus_master_(memory, irq) {
  IdeHost& host = *this;
  for (unsigned unit = 0; unit < kUnits; ++unit) {
    if (!drives[unit]) {
      continue;
    }
    if (drives[unit]->kind == IdeKind::kCdrom) {
      cdroms_[unit] = std::make_unique<AtapiCdrom>(*drives[unit], registers_[unit], host);
    } else if (drives[unit]->block != nullptr) {
      disks_[unit] = std::make_unique<AtaDisk>(*drives[unit], registers_[unit], host);
    }
  }
  bus_master_.on_start([this] {
    for (unsigned unit = 0; unit < kUnits; ++unit) {
      if (drive(unit) != nullptr) {
        drive(unit)->bus_master_started();
      }
    }
  });
  reset();
}

IdeDrive* IdeChannel::drive(unsigned unit) const {
  return disks_[unit] != nullptr ? static_cast<IdeDrive*>(disks_[unit].get()) : cdroms_[unit].get();
}

void IdeChannel::raise_interrupt() { set_intrq(true); }

void IdeChannel::set_intrq(bool level) {
  intrq_ = level;
  bus_master_.set_intrq(intrq_ && (control_ & kNIen) == 0);
}

std::uint64_t IdeChannel::CommandBlock::read(std::uint64_t offset, unsigned width) {
  if (offset == 0) {
    IdeDrive* const selected = channel.drive(channel.selected_);
    return selected != nullptr ? selected->read_data(width) : 0;
  }
  std::uint64_t value = 0;
  for (unsigned i = 0; i < width && offset + i < 8; ++i) {
    const auto at = static_cast<unsigned>(offset) + i;
    value |= std::uint64_t{channel.read_register(at)} << (8 * i);
    if (at == 7) {
      channel.set_intrq(false);
    }
  }
  return value;
}

void IdeChannel::CommandBlock::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  if (offset == 0) {
    if (IdeDrive* const selected = channel.drive(channel.selected_); selected != nullptr) {
      selected->write_data(width, static_cast<std::uint32_t>(value));
    }
    return;
  }
  for (unsigned i = 0; i < width && offset + i < 8; ++i) {
    channel.write_register(static_cast<unsigned>(offset) + i, static_cast<std::uint8_t>(value >> (8 * i)));
  }
}

void IdeChannel::CommandBlock::read_many(std::uint64_t offset, unsigned width, std::span<std::uint8_t> data) {
  // Nothing that happens to the data register selects the other drive.
  if (IdeDrive* const selected = channel.drive(channel.selected_); offset == 0 && selected != nullptr) {
    selected->read_data_many(width, data);
  } else {
    IoHandler::read_many(offset, width, data);
  }
}

void IdeChannel::CommandBlock::write_many(std::uint64_t offset, unsigned width,
                                          std::span<const std::uint8_t> data) {
  if (IdeDrive* const selected = channel.drive(channel.selected_); offset == 0 && selected != nullptr) {
    selected->write_data_many(width, data);
  } else {
    IoHandler::write_many(offset, width, data);
  }
}

std::uint64_t IdeChannel::ControlBlock::read(std::uint64_t, unsigned) { return channel.status(); }

void IdeChannel::ControlBlock::write(std::uint64_t, unsigned, std::uint64_t value) {
  channel.write_control(static_cast<std::uint8_t>(value));
}

std::uint8_t IdeChannel::status() const {
  return drive(selected_) != nullptr ? registers_[selected_].STATUS : 0;
}

std::uint8_t IdeChannel::read_register(unsigned offset) const {
  if (empty()) {
    return 0;
  }
  const IdeRegisters& r = registers_[selected_];
  const bool hob = (control_ & kHob) != 0;
  switch (offset) {
    case 1: return drive(selected_) == nullptr ? 0 : hob ? r.HOB_FEATURES : r.ERROR;
    case 2: return hob ? r.HOB_COUNT : r.COUNT;
    case 3: return hob ? r.HOB_LBA_LOW : r.LBA_LOW;
    case 4: return hob ? r.HOB_LBA_MID : r.LBA_MID;
    case 5: return hob ? r.HOB_LBA_HIGH : r.LBA_HIGH;
    case 6: return r.DEVICE;
    default: return status();
  }
}

void IdeChannel::write_register(unsigned offset, std::uint8_t value) {
  if (empty()) {
    return;
  }
  if (offset == 7) {
    control_ &= static_cast<std::uint8_t>(~kHob);
    command(value);
    return;
  }
  if ((status() & (ata::kBsy | ata::kDrq)) != 0) {
    return;  // the drive does not listen
  }
  control_ &= static_cast<std::uint8_t>(~kHob);
  for (IdeRegisters& r : registers_) {  // both drives hear every write
    switch (offset) {
      case 1: r.HOB_FEATURES = std::exchange(r.FEATURES, value); break;
      case 2: r.HOB_COUNT = std::exchange(r.COUNT, value); break;
      case 3: r.HOB_LBA_LOW = std::exchange(r.LBA_LOW, value); break;
      case 4: r.HOB_LBA_MID = std::exchange(r.LBA_MID, value); break;
      case 5: r.HOB_LBA_HIGH = std::exchange(r.LBA_HIGH, value); break;
      default: r.DEVICE = value | 0xA0; break;
    }
  }
  if (offset == 6) {
    selected_ = (value & ata::kDev) != 0 ? 1 : 0;
  }
}

void IdeChannel::command(std::uint8_t command) {
  IdeDrive* const selected = drive(selected_);
  if ((control_ & kSrst) != 0) {
    return;
  }
  if (selected == nullptr && command != kExecuteDiagnostic) {
    return;
  }
  if ((status() & (ata::kBsy | ata::kDrq)) != 0) {
    if (command == kDeviceReset) {
      selected->device_reset();
    }
    return;
  }
  set_intrq(false);
  if (command == kExecuteDiagnostic) {
    diagnostic();
    raise_interrupt();
  } else {
    selected->execute(command);
  }
}

void IdeChannel::diagnostic() {
  for (unsigned unit = 0; unit < kUnits; ++unit) {
    if (drive(unit) != nullptr) {
      drive(unit)->diagnostic();
    }
  }
  reset_absent();
  selected_ = 0;
}

void IdeChannel::write_control(std::uint8_t value) {
  if (empty()) {
    return;
  }
  const bool was_reset = (control_ & kSrst) != 0;
  const bool reset_now = (value & kSrst) != 0;
  control_ = value & (kNIen | kSrst | kHob);
  if (!was_reset && reset_now) {
    for (unsigned unit = 0; unit < kUnits; ++unit) {
      if (drive(unit) != nullptr) {
        drive(unit)->soft_reset();
      }
    }
    intrq_ = false;
  } else if (was_reset && !reset_now) {
    diagnostic();
  }
  set_intrq(intrq_);
}

void IdeChannel::reset_absent() {
  for (unsigned unit = 0; unit < kUnits; ++unit) {
    if (drive(unit) == nullptr) {
      registers_[unit] = {};
      registers_[unit].LBA_MID = 0xFF;  // no signature of any kind
      registers_[unit].LBA_HIGH = 0xFF;
    }
  }
}

void IdeChannel::reset() {
  selected_ = 0;
  control_ = 0;
  intrq_ = false;
  reset_absent();
  for (unsigned unit = 0; unit < kUnits; ++unit) {
    if (drive(unit) != nullptr) {
      registers_[unit] = {};
      drive(unit)->reset();
    }
  }
  bus_master_.reset();
}

IdeChannel::State IdeChannel::state() const {
  State state;
  state.selected = selected_;
  state.DEVICE_CONTROL = control_;
  state.intrq = intrq_;
  state.bus_master = bus_master_.state();
  for (unsigned unit = 0; unit < kUnits; ++unit) {
    UnitState& saved = state.units[unit];
    saved.present = drive(unit) != nullptr;
    saved.kind = cdroms_[unit] != nullptr ? IdeKind::kCdrom : IdeKind::kDisk;
    saved.registers = registers_[unit];
    if (disks_[unit] != nullptr) {
      saved.disk = disks_[unit]->state();
    } else if (cdroms_[unit] != nullptr) {
      saved.cdrom = cdroms_[unit]->state();
    }
  }
  return state;
}

Result<void> IdeChannel::check(const State& state) const {
  if (state.selected >= kUnits) {
    return fail(ErrorCode::kCorrupt, "ide: the saved state selects a unit above 1");
  }
  for (unsigned unit = 0; unit < kUnits; ++unit) {
    const UnitState& saved = state.units[unit];
    const IdeKind kind = cdroms_[unit] != nullptr ? IdeKind::kCdrom : IdeKind::kDisk;
    if (saved.present != (drive(unit) != nullptr) || saved.kind != kind) {
      return fail(ErrorCode::kInvalid, "ide: the saved state has other drives than this machine");
    }
    Result<void> sound;
    if (disks_[unit] != nullptr) {
      sound = disks_[unit]->check(saved.disk);
    } else if (cdroms_[unit] != nullptr) {
      sound = cdroms_[unit]->check(saved.cdrom);
    }
    if (!sound) {
      return sound;
    }
  }
  return {};
}

void IdeChannel::load(const State& state) {
  selected_ = state.selected;
  control_ = state.DEVICE_CONTROL & (kNIen | kSrst | kHob);
  intrq_ = state.intrq;
  for (unsigned unit = 0; unit < kUnits; ++unit) {
    registers_[unit] = state.units[unit].registers;
    if (disks_[unit] != nullptr) {
      disks_[unit]->load(state.units[unit].disk);
    } else if (cdroms_[unit] != nullptr) {
      cdroms_[unit]->load(state.units[unit].cdrom);
    }
  }
  bus_master_.load(state.bus_master);
  set_intrq(intrq_);
}

Task<void> IdeChannel::drain() {
  for (unsigned unit = 0; unit < kUnits; ++unit) {
    if (drive(unit) != nullptr) {
      co_await drive(unit)->drain();
    }
  }
}

}  // namespace whistler
