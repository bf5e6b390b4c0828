// The PC: which chips there are and how they are wired. The one file pair with port, interrupt, PCI slot and
// memory slot numbers.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "devices/chipset/i440fx.hpp"
#include "devices/chipset/piix3_isa.hpp"
#include "devices/chipset/piix4_pm.hpp"
#include "devices/core/bus.hpp"
#include "devices/core/guest_memory.hpp"
#include "devices/ide/piix_ide.hpp"
#include "devices/input/i8042.hpp"
#include "devices/input/ps2_input.hpp"
#include "devices/input/ps2_keyboard.hpp"
#include "devices/input/ps2_mouse.hpp"
#include "devices/legacy/debug_console.hpp"
#include "devices/legacy/debug_exit.hpp"
#include "devices/legacy/dma_8237.hpp"
#include "devices/legacy/fw_cfg.hpp"
#include "devices/legacy/port61.hpp"
#include "devices/legacy/port92.hpp"
#include "devices/legacy/rtc_mc146818.hpp"
#include "devices/legacy/test_device.hpp"
#include "devices/legacy/uart_16550a.hpp"
#include "devices/pci/pci_bus.hpp"
#include "devices/video/std_vga.hpp"
#include "firmware/facts.hpp"
#include "vmm/config/description.hpp"
#include "vmm/guest_ram.hpp"
#include "vmm/low_memory.hpp"

namespace whistler {

/// What the board is made of. Everything referred to must outlive it.
struct BoardSetup {
  const Description* description = nullptr;
  GuestRam* ram = nullptr;
  std::span<std::uint8_t> bios;     ///< page-aligned host memory
  std::span<std::uint8_t> vram;     ///< likewise; empty without a video card
  std::span<std::uint8_t> vga_rom;  ///< likewise
  Bus* ports = nullptr;
  Bus* memory = nullptr;
  MemoryMapper* mapper = nullptr;
  TimerQueue* timers = nullptr;
  IrqSink* gsis = nullptr;  ///< inputs 0 to 23
  bool kernel_interrupt_controllers =
      false;                       ///< KVM answers at the PIC, PIT and ELCR ports, and at port 0x61
  std::int64_t start_seconds = 0;  ///< what the RTC shows at first
  PiixIde::Drives drives;
  std::vector<CharBackend*> serial;      ///< COM1, COM2; null: nothing connected
  CharBackend* debug_console = nullptr;  ///< null: no port 0x402
  // What the guest may ask of the machine; called under the lock from within the guest's access.
  std::function<void()> request_reset;
  std::function<void()> request_power_off;
  std::function<void(int status)> request_exit;
};

class BoardPc {
 public:
  [[nodiscard]] static Result<std::unique_ptr<BoardPc>> create(const BoardSetup& setup);
  ~BoardPc();
  BoardPc(const BoardPc&) = delete;
  BoardPc& operator=(const BoardPc&) = delete;

  /// Everything to its power-on state but memory and battery-backed CMOS. I/O must have been drained.
  void reset();
  /// Every device, in the order in which they are to be loaded.
  [[nodiscard]] const std::vector<Device*>& devices() const { return devices_; }

  [[nodiscard]] const GuestMemory& memory() const { return memory_; }
  [[nodiscard]] StdVga* vga() { return vga_.get(); }
  [[nodiscard]] Ps2Input& input() { return input_; }
  /// Whether a key pressed now reaches a guest that has read all earlier ones from port 0x60.
  [[nodiscard]] bool keyboard_ready() const {
    return keyboard_.scanning() && keyboard_.keys_pending() == 0 && !i8042_.keyboard_byte_waits();
  }
  [[nodiscard]] Piix4Pm& power() { return pm_; }
  [[nodiscard]] PiixIde& ide() { return ide_; }
  [[nodiscard]] RtcMc146818& rtc() { return rtc_; }
  [[nodiscard]] const PciBus& pci() const { return pci_; }
  [[nodiscard]] Uart16550a* serial(unsigned index) {
    return index < serial_.size() ? serial_[index].get() : nullptr;
  }

  /// What a BIOS would have set up, for a kernel started without one.
  void set_up_without_firmware();
  /// The facts the firmware's tables are made from.
  [[nodiscard]] const MachineFacts& facts() const { return facts_; }

  /// Ranges whose writes may be queued: what is written far more often than read, and has no effect until
  /// then.
  static constexpr std::uint64_t kVgaWindow = 0xA0000;
  static constexpr std::uint32_t kVgaWindowLength = 0x20000;
  static constexpr std::uint16_t kRtcIndexPort = 0x70;

 private:
  class TestLines;
  explicit BoardPc(const BoardSetup& setup);
  [[nodiscard]] Result<void> wire(const BoardSetup& setup);
  [[nodiscard]] Result<void> map_ports(const BoardSetup& setup);
  void set_cmos(const BoardSetup& setup);
  void set_cmos_boot_order(const std::vector<std::string>& kinds);
  [[nodiscard]] Result<void> fill_fw_cfg();

  const Description& description_;
  MachineFacts facts_;
  GuestMemory memory_;
  LowMemory low_memory_;
  I440fx host_bridge_;
  Piix3Isa isa_;
  PciBus pci_;
  Port92 port92_;
  Port61 port61_;
  RtcMc146818 rtc_;
  Dma8237 dma_;
  Ps2Keyboard keyboard_;
  Ps2Mouse mouse_;
  Ps2Input input_;
  I8042 i8042_;
  PiixIde ide_;
  Piix4Pm pm_;
  FwCfg fw_cfg_;
  std::unique_ptr<StdVga> vga_;
  std::vector<std::unique_ptr<Uart16550a>> serial_;
  std::unique_ptr<DebugConsole> debug_console_;
  std::unique_ptr<DebugExit> debug_exit_;
  std::unique_ptr<TestLines> test_lines_;
  std::unique_ptr<TestDevice> test_device_;
  std::vector<Device*> devices_;
  bool kernel_interrupt_controllers_;
};

}  // namespace whistler
