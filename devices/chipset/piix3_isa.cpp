#include "devices/chipset/piix3_isa.hpp"

#include "base/log.hpp"

namespace whistler {
namespace {

constexpr unsigned kPirqrcA = 0x60;
constexpr std::uint8_t kPirqDisable = 0x80;
constexpr std::uint8_t kPirqRouting = 0x0F;
// IRQ 0, 1, 2, 8 and 13 belong to the board; PIRQRC values naming them are reserved and route nowhere.
constexpr unsigned kRoutable = 0xDEF8;

constexpr std::uint8_t kSrst = 0x02;
constexpr std::uint8_t kRcpu = 0x04;

// The same five interrupts are always edge-triggered.
constexpr std::array<std::uint8_t, 2> kElcrWritable = {0xF8, 0xDE};

struct PowerOn {
  std::uint8_t offset;
  std::uint8_t value;
};
// IORT, XBCS, PIRQRC, TOM, MBIRQ0, the DMA type F pair, PCSC, SMICNTL, FOS (2.2), as QEMU's `pc` resets them.
constexpr PowerOn kPowerOn[] = {{0x4C, 0x4D}, {0x4E, 0x03}, {0x60, 0x80}, {0x61, 0x80}, {0x62, 0x80},
                                {0x63, 0x80}, {0x69, 0x02}, {0x70, 0x80}, {0x76, 0x0C}, {0x77, 0x0C},
                                {0x78, 0x02}, {0xA0, 0x08}, {0xA8, 0x0F}};

}  // namespace

Piix3Isa::Piix3Isa(IrqSink& isa_irqs, std::function<void(ResetKind)> request_reset)
    : PciFunction({.vendor = 0x8086, .device = 0x7000, .class_code = 0x060100, .multifunction = true}),
      isa_irqs_(isa_irqs),
      request_reset_(std::move(request_reset)),
      reset_control_([this](unsigned) { return state_.RC; },
                     [this](unsigned, std::uint8_t value) { write_reset_control(value); }),
      elcr_([this](unsigned offset) { return state_.ELCR[offset & 1]; },
            [this](unsigned offset, std::uint8_t value) { write_elcr(offset & 1, value); }) {
  set_register(kPciStatus, 2, 0x0200, 0);  // DEVSEL# timing: medium
  for (unsigned offset = 0x40; offset < 0x100; ++offset) {
    set_register(offset, 1, 0, 0xFF);
  }
  for (const PowerOn& entry : kPowerOn) {
    set_register(entry.offset, 1, entry.value, 0xFF);
  }
}

void Piix3Isa::Inputs::set_irq(unsigned input, bool level) {
  if (input >= count_) {
    log_once(LogLevel::kWarning, "piix3-isa input",
             "piix3-isa: an interrupt input that does not exist was driven");
    return;
  }
  levels_ = level ? levels_ | 1U << input : levels_ & ~(1U << input);
  chip_.update_irqs();
}

void Piix3Isa::update_irqs() {
  unsigned wanted = isa_inputs_.levels();
  for (unsigned pirq = 0; pirq < kPirqs; ++pirq) {
    const auto route = config().bytes[kPirqrcA + pirq];
    if (pirq_inputs_.level(pirq) && (route & kPirqDisable) == 0) {
      wanted |= (1U << (route & kPirqRouting)) & kRoutable;
    }
  }
  const unsigned changed = wanted ^ driven_;
  driven_ = wanted;
  for (unsigned irq = 0; irq < kIsaIrqs; ++irq) {
    if (((changed >> irq) & 1) != 0) {
      isa_irqs_.set_irq(irq, ((wanted >> irq) & 1) != 0);
    }
  }
}

void Piix3Isa::config_written(unsigned offset, unsigned width) {
  if (offset < kPirqrcA + kPirqs && offset + width > kPirqrcA) {
    update_irqs();
  }
}

void Piix3Isa::write_reset_control(std::uint8_t value) {
  const bool hard = (value & kSrst) != 0;
  state_.RC = value & kSrst;
  if ((value & kRcpu) != 0 && request_reset_) {
    request_reset_(hard ? ResetKind::kHard : ResetKind::kSoft);
  }
}

void Piix3Isa::write_elcr(unsigned index, std::uint8_t value) {
  state_.ELCR[index] = value & kElcrWritable[index];
}

// The wires that come in keep their levels: they are the business of the devices that drive them.
void Piix3Isa::reset() {
  state_ = {};
  reset_config();
  update_irqs();
}

void Piix3Isa::save(StateWriter& writer) const {
  State state = state_;
  state.pci = config();
  writer.put(state);
}

Result<void> Piix3Isa::load(const StateReader& reader) {
  State state;
  if (auto done = reader.get(state); !done) {
    return std::unexpected(done.error().within(id()));
  }
  load_config(state.pci);
  state_ = {};
  state_.RC = state.RC & kSrst;
  for (unsigned i = 0; i < kElcrWritable.size(); ++i) {
    write_elcr(i, state.ELCR[i]);
  }
  update_irqs();
  return {};
}

}  // namespace whistler
