#include "devices/chipset/i440fx.hpp"

namespace whistler {
namespace {

constexpr unsigned kDramc = 0x57;
constexpr unsigned kPam0 = 0x59;
constexpr unsigned kPam1 = 0x5A;
constexpr unsigned kSmram = 0x72;

constexpr std::uint8_t kReadEnable = 1;
constexpr std::uint8_t kWriteEnable = 2;

constexpr std::uint8_t kCBaseSeg = 0x02;  // read-only: compatible SMRAM is at 0xA0000
constexpr std::uint8_t kGSmrame = 0x08;
constexpr std::uint8_t kDLck = 0x10;
constexpr std::uint8_t kDCls = 0x20;
constexpr std::uint8_t kDOpen = 0x40;

// RE and WE of a segment. PAM0 has one segment, in its upper half; the others have two, the lower one first.
std::uint8_t segment_attributes(const std::array<std::uint8_t, 256>& config, unsigned segment) {
  const unsigned value =
      segment == 0 ? config[kPam0] >> 4 : config[kPam1 + (segment - 1) / 2] >> (4 * ((segment - 1) % 2));
  return value & (kReadEnable | kWriteEnable);
}

}  // namespace

I440fx::I440fx(ShadowControl& shadow)
    : PciFunction({.vendor = 0x8086, .device = 0x1237, .class_code = 0x060000, .revision = 2}),
      shadow_(shadow) {
  for (unsigned offset = 0x40; offset < 0x100; ++offset) {
    set_register(offset, 1, 0, 0xFF);
  }
  set_register(kDramc, 1, 0x08, 0xFF);
  set_register(kSmram, 1, kCBaseSeg, kGSmrame | kDLck | kDCls | kDOpen);
}

void I440fx::reset() {
  smram_locked_ = false;
  reset_config();
  update_map();
}

void I440fx::save(StateWriter& writer) const { writer.put(State{.pci = config()}); }

Result<void> I440fx::load(const StateReader& reader) {
  State state;
  if (auto done = reader.get(state); !done) {
    return std::unexpected(done.error().within(id()));
  }
  load_config(state.pci);
  smram_locked_ = false;
  lock_smram();
  update_map();
  return {};
}

void I440fx::config_written(unsigned, unsigned) {
  lock_smram();
  update_map();
}

// Once D_LCK was set it stays set, and D_OPEN clear, until reset.
void I440fx::lock_smram() {
  const std::uint32_t value = config_read(kSmram, 1);
  smram_locked_ = smram_locked_ || (value & kDLck) != 0;
  if (smram_locked_) {
    poke(kSmram, 1, (value | kDLck) & ~std::uint32_t{kDOpen});
  }
}

void I440fx::update_map() {
  for (unsigned segment = 0; segment < kSegments; ++segment) {
    const auto attributes = segment_attributes(config().bytes, segment);
    if (attributes != attributes_[segment]) {
      attributes_[segment] = attributes;
      shadow_.set_shadow(segment, (attributes & kReadEnable) != 0, (attributes & kWriteEnable) != 0);
    }
  }
  const bool open = (config_read(kSmram, 1) & (kDOpen | kGSmrame)) == (kDOpen | kGSmrame);
  if (open != smram_open_) {
    smram_open_ = open;
    shadow_.set_smram_open(open);
  }
}

}  // namespace whistler
