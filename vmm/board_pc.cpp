#include "vmm/board_pc.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>

#include "devices/ide/disk_geometry.hpp"
#include "firmware/boot_path.hpp"
#include "firmware/items.hpp"

namespace whistler {
namespace {

// PCI positions, as on QEMU's `pc`.
constexpr unsigned kHostBridgeSlot = 0;
constexpr unsigned kPiixSlot = 1;
constexpr unsigned kIsaFunction = 0;
constexpr unsigned kIdeFunction = 1;
constexpr unsigned kPmFunction = 3;
constexpr unsigned kVgaSlot = 2;

// ISA interrupts.
constexpr unsigned kIrqKeyboard = 1;
constexpr unsigned kIrqRtc = 8;
constexpr unsigned kIrqSci = 9;
constexpr unsigned kIrqMouse = 12;
constexpr std::array<unsigned, 2> kIrqIde = {14, 15};
constexpr std::array<unsigned, 2> kIrqSerial = {4, 3};

// Ports.
constexpr std::uint16_t kPortDma1 = 0x00;
constexpr std::uint16_t kPortKeyboard = 0x60;
constexpr std::uint16_t kPortSystemB = 0x61;
constexpr std::uint16_t kPortRtc = BoardPc::kRtcIndexPort;
constexpr std::uint16_t kPortDmaPages = 0x80;
constexpr std::uint16_t kPortSystemA = 0x92;
constexpr std::uint16_t kPortApm = 0xB2;
constexpr std::uint16_t kPortDma2 = 0xC0;
constexpr std::uint16_t kPortVbe = 0x1CE;
constexpr std::array<std::uint16_t, 2> kPortIdeCommand = {0x1F0, 0x170};
constexpr std::array<std::uint16_t, 2> kPortIdeControl = {0x3F6, 0x376};
constexpr std::uint16_t kPortVga = 0x3B0;
constexpr std::array<std::uint16_t, 2> kPortSerial = {0x3F8, 0x2F8};
constexpr std::uint16_t kPortDebugConsole = 0x402;
constexpr std::uint16_t kPortDmaHighPages = 0x480;
constexpr std::uint16_t kPortTestLatch = 0xE0;
constexpr std::uint16_t kPortTestFlush = 0xE4;
constexpr std::uint16_t kPortTestBytes = 0xE8;
constexpr std::uint16_t kPortTestLines = 0x2000;
constexpr std::uint64_t kTestMemory = 0xFF000000;
constexpr std::uint16_t kPortElcr = 0x4D0;
constexpr std::uint16_t kPortFwCfg = 0x510;
constexpr std::uint16_t kPortFwCfgDma = 0x514;
constexpr std::uint16_t kPortPciAddress = 0xCF8;
constexpr std::uint16_t kPortReset = 0xCF9;
constexpr std::uint16_t kPortPciData = 0xCFC;
constexpr std::uint16_t kPortGpe = 0xAFE0;
constexpr std::uint16_t kPmBase = 0x600;  // where SeaBIOS puts it too: the FADT says so
constexpr std::uint16_t kSmbusBase = 0x700;

// Memory slots.
constexpr unsigned kSlotLowRam = 0;   // 0 to 640 KiB
constexpr unsigned kSlotRam = 1;      // 1 MiB to the PCI hole
constexpr unsigned kSlotHighRam = 2;  // from 4 GiB
constexpr unsigned kSlotBios = 3;
constexpr unsigned kSlotVram = 4;
constexpr unsigned kSlotVgaRom = 5;
constexpr unsigned kSlotVgaWindow = 6;
constexpr unsigned kSlotLowMemory = 8;  // LowMemory::kSlots from here on

constexpr std::uint64_t kConventional = 640 * kKiB;
constexpr std::uint64_t kPage = 4096;

// CMOS bytes beyond the clock, as SeaBIOS and guests read them (Ralf Brown's CMOS.LST; QEMU's pc uses the
// same).
constexpr unsigned kCmosDiskTypes = 0x12;
constexpr unsigned kCmosEquipment = 0x14;
constexpr unsigned kCmosBaseMemory = 0x15;      // KiB
constexpr unsigned kCmosExtendedMemory = 0x17;  // KiB above 1 MiB, repeated at 0x30
constexpr unsigned kCmosDiskTypeC = 0x19;
constexpr unsigned kCmosGeometryC = 0x1B;
constexpr unsigned kCmosGeometryD = 0x24;
constexpr unsigned kCmosExtendedMemory2 = 0x30;
constexpr unsigned kCmosMemoryAbove16M = 0x34;  // units of 64 KiB
constexpr unsigned kCmosBootThird = 0x38;
constexpr unsigned kCmosTranslation = 0x39;
constexpr unsigned kCmosBootOrder = 0x3D;
constexpr unsigned kCmosHighMemory = 0x5B;  // three bytes, units of 64 KiB above 4 GiB
constexpr unsigned kCmosCpus = 0x5F;
constexpr std::uint8_t kEquipmentFpu = 0x02;
constexpr std::uint8_t kEquipmentMouse = 0x04;
constexpr std::uint8_t kUserDefinedDisk = 47;

std::string ide_path(const DriveDescription& drive) {
  return ide_boot_path(kPiixSlot, kIdeFunction, drive.bus, drive.unit);
}

/// The drives of these kinds, as SeaBIOS names them.
std::vector<std::string> boot_devices(const Description& d, const std::vector<std::string>& kinds) {
  std::vector<std::string> paths;
  for (const auto& kind : kinds) {
    for (const auto& drive : d.drives) {
      const std::string_view is = drive.media == Media::kDisk ? "disk" : "cdrom";
      if (drive.interface == DriveInterface::kIde && kind == is) {
        paths.push_back(ide_path(drive));
      }
    }
  }
  return paths;
}

MachineFacts facts_of(const BoardSetup& setup) {
  const Description& d = *setup.description;
  MachineFacts facts;
  facts.name = d.name;
  facts.cpus = d.cpu.cores;
  facts.ram_below_4g = setup.ram->low().size();
  facts.ram_above_4g = setup.ram->high().size();
  facts.uuid = d.uuid;
  facts.boot_menu = d.boot.menu;
  if (d.boot.menu_timeout != 0) {
    facts.boot_menu_wait_ms = d.boot.menu_timeout;
  }
  facts.acpi = d.machine.acpi;
  facts.apic = d.machine.apic;
  facts.serial_ports = static_cast<unsigned>(setup.serial.size());
  facts.graphics = d.display.vga;
  facts.boot_fail_wait_ms = d.boot.reboot_timeout;
  facts.boot_devices = boot_devices(d, d.boot.once.empty() ? d.boot.order : d.boot.once);
  for (const auto& drive : d.drives) {
    if (drive.bios_geometry) {
      const auto& chs = *drive.bios_geometry;
      facts.disks.push_back({ide_path(drive), chs.cylinders, chs.heads, chs.sectors});
    }
  }
  return facts;
}

}  // namespace

/// The lines of TestDevice: the ISA interrupts, then the interrupt controllers' own inputs.
class BoardPc::TestLines final : public IrqSink {
 public:
  TestLines(IrqSink& isa, IrqSink& gsis) : isa_(isa), gsis_(gsis) {}
  void set_irq(unsigned input, bool level) override {
    (input < Piix3Isa::kIsaIrqs ? isa_ : gsis_).set_irq(input, level);
  }

 private:
  IrqSink& isa_;
  IrqSink& gsis_;
};

Result<std::unique_ptr<BoardPc>> BoardPc::create(const BoardSetup& setup) {
  std::unique_ptr<BoardPc> board(new BoardPc(setup));
  if (auto done = board->wire(setup); !done) {
    return std::unexpected(done.error());
  }
  board->set_cmos(setup);
  if (auto done = board->fill_fw_cfg(); !done) {
    return std::unexpected(done.error());
  }
  return board;
}

BoardPc::BoardPc(const BoardSetup& s)
    : description_(*s.description),
      facts_(facts_of(s)),
      low_memory_(*s.mapper, kSlotLowMemory, s.ram->low(), s.bios),
      host_bridge_(low_memory_),
      isa_(*s.gsis, [request = s.request_reset](ResetKind) { request(); }),
      pci_(*s.ports, *s.memory, *s.mapper, isa_.pirq_inputs()),
      port92_(s.request_reset),
      port61_(s.timers->clock()),
      rtc_(*s.timers, {isa_.isa_inputs(), kIrqRtc},
           {.start_seconds = s.start_seconds, .lost_ticks = RtcMc146818::LostTicks::kReinject}),
      dma_(memory_),
      input_(keyboard_, mouse_),
      i8042_({isa_.isa_inputs(), kIrqKeyboard}, {isa_.isa_inputs(), kIrqMouse}, keyboard_, mouse_, port92_),
      ide_(memory_, {isa_.isa_inputs(), kIrqIde[0]}, {isa_.isa_inputs(), kIrqIde[1]}, s.drives,
           s.description->machine.ide == IdeChip::kPiix4 ? PiixIdeModel::kPiix4 : PiixIdeModel::kPiix3),
      pm_(*s.timers, *s.ports, {isa_.isa_inputs(), kIrqSci},
          [off = s.request_power_off](SleepState) { off(); }),
      fw_cfg_(memory_),
      kernel_interrupt_controllers_(s.kernel_interrupt_controllers) {
  if (!s.vram.empty()) {
    vga_ = std::make_unique<StdVga>(s.timers->clock(), *s.mapper,
                                    StdVga::Setup{.vram = s.vram,
                                                  .vram_slot = kSlotVram,
                                                  .rom = s.vga_rom,
                                                  .rom_slot = kSlotVgaRom,
                                                  .window_slot = kSlotVgaWindow});
  }
  for (unsigned i = 0; i < s.serial.size(); ++i) {
    serial_.push_back(std::make_unique<Uart16550a>(fmt::format("serial{}", i), *s.timers,
                                                   IrqLine(isa_.isa_inputs(), kIrqSerial[i]), s.serial[i]));
  }
  pm_.announce_serial_ports(!serial_.empty(), serial_.size() > 1);
  if (s.debug_console != nullptr) {
    debug_console_ = std::make_unique<DebugConsole>(*s.debug_console);
  }
  if (s.description->debug.exit_port) {
    debug_exit_ = std::make_unique<DebugExit>(s.request_exit);
  }
  if (s.description->debug.testdev) {
    test_lines_ = std::make_unique<TestLines>(isa_.isa_inputs(), *s.gsis);
    test_device_ = std::make_unique<TestDevice>(*test_lines_, [this](std::uint64_t page) {
      if (const auto ram = memory_.slice(page, kPage); ram.size() == kPage) {
        // What KVM has derived from the page is thrown away with the host's rights to it.
        ::mprotect(ram.data(), ram.size(), PROT_READ);
        ::mprotect(ram.data(), ram.size(), PROT_READ | PROT_WRITE);
      }
    });
  }
  // The keyboard controller is loaded after its devices, the bridge's inputs before those that drive them.
  devices_ = {&pci_,      &host_bridge_, &isa_,   &port92_, &port61_, &rtc_,   &dma_,
              &keyboard_, &mouse_,       &i8042_, &ide_,    &pm_,     &fw_cfg_};
  if (vga_) {
    devices_.push_back(vga_.get());
  }
  for (const auto& port : serial_) {
    devices_.push_back(port.get());
  }
  if (test_device_) {
    devices_.push_back(test_device_.get());
  }
}

BoardPc::~BoardPc() = default;

Result<void> BoardPc::wire(const BoardSetup& s) {
  const auto low = s.ram->low();
  memory_.add(0, low.first(std::min<std::size_t>(low.size(), kConventional)));
  memory_.add(LowMemory::kShadowBase, low.subspan(LowMemory::kShadowBase));
  if (!s.ram->high().empty()) {
    memory_.add(kHighRamBase, s.ram->high());
  }
  using Access = MemoryMapper::Access;
  s.mapper->map(kSlotLowRam, 0, low.first(kConventional), Access::kReadWrite);
  s.mapper->map(kSlotRam, LowMemory::kTop, low.subspan(LowMemory::kTop), Access::kReadWrite);
  s.mapper->map(kSlotHighRam, kHighRamBase, s.ram->high(), Access::kReadWrite);
  s.mapper->map(kSlotBios, kHighRamBase - s.bios.size(), s.bios, Access::kReadOnly);
  if (auto done = low_memory_.attach(*s.memory); !done) {
    return done;
  }
  struct Plug {
    unsigned slot, function;
    PciFunction* chip;
    std::string_view name;
  };
  const std::array plugs = std::to_array<Plug>({{kHostBridgeSlot, 0, &host_bridge_, "i440FX"},
                                                {kPiixSlot, kIsaFunction, &isa_, "PIIX3 ISA"},
                                                {kPiixSlot, kIdeFunction, &ide_, "PIIX IDE"},
                                                {kPiixSlot, kPmFunction, &pm_, "PIIX4 PM"},
                                                {kVgaSlot, 0, vga_.get(), "VGA"}});
  for (const Plug& plug : plugs) {
    if (plug.chip == nullptr) {
      continue;
    }
    if (auto done = pci_.attach(plug.slot, plug.function, *plug.chip, plug.name); !done) {
      return done;
    }
  }
  return map_ports(s);
}

Result<void> BoardPc::map_ports(const BoardSetup& s) {
  struct Row {
    BusRange range;
    IoHandler* handler;
    std::string_view owner;
  };
  std::vector<Row> rows = {
      {{.base = kPortDma1, .length = 16, .max_width = 1}, &dma_.first(), "DMA 1"},
      {{.base = kPortKeyboard, .length = 1, .max_width = 1}, &i8042_, "i8042 data"},
      {{.base = kPortKeyboard + 4, .length = 1, .max_width = 1, .offset = 4}, &i8042_, "i8042 command"},
      {{.base = kPortRtc, .length = 2, .max_width = 1}, &rtc_, "RTC"},
      {{.base = kPortDmaPages, .length = 16, .max_width = 1}, &dma_.pages(), "DMA pages"},
      {{.base = kPortSystemA, .length = 1, .max_width = 1}, &port92_, "port 92"},
      {{.base = kPortApm, .length = 2, .max_width = 1}, &pm_.apm(), "APM"},
      {{.base = kPortDma2, .length = 32, .max_width = 1}, &dma_.second(), "DMA 2"},
      {{.base = kPortDmaHighPages, .length = 16, .max_width = 1}, &dma_.high_pages(), "DMA high pages"},
      {{.base = kPortFwCfg, .length = 2, .max_width = 2}, &fw_cfg_.ports(), "fw_cfg"},
      {{.base = kPortFwCfgDma, .length = 8, .max_width = 8}, &fw_cfg_.dma(), "fw_cfg DMA"},
      {{.base = kPortPciAddress, .length = 1, .max_width = 4}, &pci_, "PCI address"},
      {{.base = kPortReset, .length = 1, .max_width = 1}, &isa_.reset_control(), "reset control"},
      {{.base = kPortPciData, .length = 4, .max_width = 4, .offset = 4}, &pci_, "PCI data"},
      {{.base = kPortGpe, .length = Piix4Pm::kGpeLength, .max_width = 4}, &pm_.gpe(), "GPE0"},
  };
  if (!kernel_interrupt_controllers_) {
    rows.push_back({{.base = kPortSystemB, .length = 1, .max_width = 1}, &port61_, "port 61"});
    rows.push_back({{.base = kPortElcr, .length = 2, .max_width = 1}, &isa_.elcr(), "ELCR"});
  }
  for (unsigned channel = 0; channel < PiixIde::kChannels; ++channel) {
    // The data register takes up to 32 bits; a wide access that starts at a byte register is split.
    rows.push_back({{.base = kPortIdeCommand[channel], .length = 1, .max_width = 4},
                    &ide_.command_block(channel),
                    "IDE data"});
    rows.push_back({{.base = kPortIdeCommand[channel] + 1U, .length = 7, .max_width = 1, .offset = 1},
                    &ide_.command_block(channel),
                    "IDE command"});
    rows.push_back({{.base = kPortIdeControl[channel], .length = 1, .max_width = 1},
                    &ide_.control_block(channel),
                    "IDE control"});
  }
  for (unsigned i = 0; i < serial_.size(); ++i) {
    rows.push_back({{.base = kPortSerial[i], .length = 8, .max_width = 1}, serial_[i].get(), "serial"});
  }
  if (debug_console_) {
    rows.push_back(
        {{.base = kPortDebugConsole, .length = 1, .max_width = 1}, debug_console_.get(), "debug console"});
  }
  if (debug_exit_) {
    rows.push_back({{.base = *description_.debug.exit_port, .length = 1, .max_width = 4},
                    debug_exit_.get(),
                    "debug.exit_port"});
  }
  if (test_device_) {
    rows.insert(rows.end(),
                {{{.base = kPortTestLatch, .length = 4, .max_width = 4}, &test_device_->latch(), "testdev"},
                 {{.base = kPortTestFlush, .length = 4, .max_width = 4}, &test_device_->flush(), "testdev"},
                 {{.base = kPortTestBytes, .length = 4, .max_width = 1}, &test_device_->latch(), "testdev"},
                 {{.base = kPortTestLines, .length = TestDevice::kLines, .max_width = 1},
                  &test_device_->lines(),
                  "testdev"}});
    if (auto done = s.memory->map({.base = kTestMemory, .length = TestDevice::kMemoryLength, .max_width = 8},
                                  test_device_->memory(), "testdev");
        !done) {
      return done;
    }
  }
  if (vga_) {
    rows.push_back({{.base = kPortVga, .length = 0x30, .max_width = 1}, &vga_->ports(), "VGA"});
    rows.push_back({{.base = kPortVbe, .length = 3, .max_width = 2}, &vga_->dispi(), "VBE"});
    if (auto done = s.memory->map({.base = kVgaWindow, .length = kVgaWindowLength, .max_width = 8},
                                  vga_->window(), "VGA window");
        !done) {
      return done;
    }
  }
  for (const Row& row : rows) {
    if (auto done = s.ports->map(row.range, *row.handler, row.owner); !done) {
      return std::unexpected(done.error().within(description_.source.string()));
    }
  }
  return {};
}

void BoardPc::set_cmos(const BoardSetup& s) {
  const auto word = [&](unsigned index, std::uint64_t value) {
    rtc_.set_cmos(index, static_cast<std::uint8_t>(value));
    rtc_.set_cmos(index + 1, static_cast<std::uint8_t>(value >> 8));
  };
  const std::uint64_t low = s.ram->low().size();
  const std::uint64_t high = s.ram->high().size();
  constexpr std::uint64_t kMost = 0xFFFF;
  const auto extended = std::min((low - kMiB) / kKiB, kMost);
  const auto above_16m = low > 16 * kMiB ? std::min((low - 16 * kMiB) / (64 * kKiB), kMost) : 0;
  word(kCmosBaseMemory, kConventional / kKiB);
  word(kCmosExtendedMemory, extended);
  word(kCmosExtendedMemory2, extended);
  word(kCmosMemoryAbove16M, above_16m);
  word(kCmosHighMemory, high / (64 * kKiB));
  rtc_.set_cmos(kCmosHighMemory + 2, static_cast<std::uint8_t>(high / (64 * kKiB) >> 16));
  rtc_.set_cmos(kCmosCpus, static_cast<std::uint8_t>(description_.cpu.cores - 1));
  rtc_.set_cmos(kCmosEquipment, kEquipmentFpu | kEquipmentMouse);

  std::uint8_t types = 0;
  std::uint8_t translation = 0;
  for (unsigned index = 0; index < 4; ++index) {
    const auto& drive = s.drives[index / 2][index % 2];
    if (!drive || drive->kind != IdeKind::kDisk || drive->block == nullptr) {
      continue;
    }
    const IdeGeometry chs = drive->geometry.value_or(standard_geometry(drive->block->size() / 512));
    const auto shown = drive->translation.value_or(usual_translation(chs));
    translation = static_cast<std::uint8_t>(translation | static_cast<unsigned>(shown) << (2 * index));
    if (index < 2) {
      types = static_cast<std::uint8_t>(types | (index == 0 ? 0xF0 : 0x0F));
      rtc_.set_cmos(kCmosDiskTypeC + index, kUserDefinedDisk);
      const unsigned at = index == 0 ? kCmosGeometryC : kCmosGeometryD;
      word(at, chs.cylinders);
      rtc_.set_cmos(at + 2, chs.heads);
      word(at + 3, 0xFFFF);  // no write precompensation
      rtc_.set_cmos(at + 5, static_cast<std::uint8_t>(0xC0 | (chs.heads > 8 ? 8 : 0)));
      word(at + 6, chs.cylinders);  // landing zone
      rtc_.set_cmos(at + 8, chs.sectors);
    }
  }
  rtc_.set_cmos(kCmosDiskTypes, types);
  rtc_.set_cmos(kCmosTranslation, translation);

  const auto& boot = description_.boot;
  set_cmos_boot_order(boot.once.empty() ? boot.order : boot.once);
}

void BoardPc::set_cmos_boot_order(const std::vector<std::string>& kinds) {
  std::array<std::uint8_t, 3> order{};
  for (std::size_t i = 0; i < std::min(order.size(), kinds.size()); ++i) {
    const auto& kind = kinds[i];
    order[i] = kind == "floppy" ? 1 : kind == "disk" ? 2 : kind == "cdrom" ? 3 : 4;
  }
  const unsigned unchecked = description_.boot.floppy_check ? 0 : 1;
  rtc_.set_cmos(kCmosBootOrder, static_cast<std::uint8_t>(order[1] << 4 | order[0]));
  rtc_.set_cmos(kCmosBootThird, static_cast<std::uint8_t>(static_cast<unsigned>(order[2]) << 4 | unchecked));
}

Result<void> BoardPc::fill_fw_cfg() {
  auto items = make_firmware_items(facts_);
  if (!items) {
    return std::unexpected(items.error().within(description_.source.string()));
  }
  for (auto& item : *items) {
    auto done = item.name.empty() ? fw_cfg_.add_item(item.key, std::move(item.bytes))
                                  : fw_cfg_.add_file(item.name, std::move(item.bytes), item.writable);
    if (!done) {
      return done;
    }
  }
  return {};
}

void BoardPc::reset() {
  for (Device* device : devices_) {
    device->reset();
  }
  if (!description_.boot.once.empty()) {
    set_cmos_boot_order(description_.boot.order);
    fw_cfg_.set_file("bootorder", encode_boot_order(boot_devices(description_, description_.boot.order)));
  }
}

void BoardPc::set_up_without_firmware() {
  // RAM in place of ROM from 0xC0000 to 0xFFFFF: the tables lie there (82441FX, 3.2.18).
  constexpr unsigned kPam0 = 0x59;
  pci_.config_write(kHostBridgeSlot, 0, kPam0, 1, 0x30);
  for (unsigned pam = 1; pam <= 6; ++pam) {
    pci_.config_write(kHostBridgeSlot, 0, kPam0 + pam, 1, 0x33);
  }
  // PIRQ A to D as SeaBIOS routes them, and each function's interrupt line to match.
  constexpr std::array<std::uint8_t, 4> kPirqIrq = {10, 10, 11, 11};
  constexpr unsigned kPirqRoute = 0x60;
  for (unsigned i = 0; i < kPirqIrq.size(); ++i) {
    pci_.config_write(kPiixSlot, kIsaFunction, kPirqRoute + i, 1, kPirqIrq[i]);
  }
  if (!kernel_interrupt_controllers_) {
    isa_.elcr().write(1, 1, 0x0E);
  }
  pci_.config_write(kPiixSlot, kPmFunction, 0x40, 4, kPmBase | 1U);
  pci_.config_write(kPiixSlot, kPmFunction, 0x80, 1, 1);
  pci_.config_write(kPiixSlot, kPmFunction, 0x90, 4, kSmbusBase | 1U);
  pci_.config_write(kPiixSlot, kPmFunction, 0xD2, 1, 9);
  pci_.config_write(kPiixSlot, kPmFunction, kPciInterruptLine, 1, kIrqSci);
  pci_.config_write(kPiixSlot, kIdeFunction, 0x40, 4, 0x80008000);
  pci_.config_write(kPiixSlot, kIdeFunction, kPciBar0 + 16, 4, 0xC000);
  pci_.config_write(kPiixSlot, kIdeFunction, kPciCommand, 2, kPciCommandIo | kPciCommandMaster);
  pci_.config_write(kVgaSlot, 0, kPciBar0, 4, 0xE0000000);  // aligned for any size up to 256 MiB
  pci_.config_write(kVgaSlot, 0, kPciBar0 + 8, 4, 0xFEBF0000);
  pci_.config_write(kVgaSlot, 0, kPciCommand, 2, kPciCommandIo | kPciCommandMemory);
}

}  // namespace whistler
