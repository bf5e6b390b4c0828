// One function of a PCI device: its configuration space and base address registers.
// Models: type 0 header, I/O and memory BARs (32-bit), expansion ROM BAR, INTx with the status and disable
// bits. Missing: capabilities, 64-bit BARs, BIST, parity and SERR reporting (status bits read as zero).
// Documentation: PCI Local Bus Specification 2.2, chapter 6.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/state.hpp"
#include "devices/core/io_handler.hpp"
#include "devices/core/irq_line.hpp"
#include "devices/core/memory_mapper.hpp"

namespace whistler {

/// Offsets in a type 0 header (PCI 2.2, figure 6-1).
inline constexpr unsigned kPciVendorId = 0x00;
inline constexpr unsigned kPciDeviceId = 0x02;
inline constexpr unsigned kPciCommand = 0x04;
inline constexpr unsigned kPciStatus = 0x06;
inline constexpr unsigned kPciRevision = 0x08;
inline constexpr unsigned kPciClass = 0x09;
inline constexpr unsigned kPciLatency = 0x0D;
inline constexpr unsigned kPciHeaderType = 0x0E;
inline constexpr unsigned kPciBar0 = 0x10;
inline constexpr unsigned kPciSubsystemVendor = 0x2C;
inline constexpr unsigned kPciSubsystemId = 0x2E;
inline constexpr unsigned kPciRomBar = 0x30;
inline constexpr unsigned kPciInterruptLine = 0x3C;
inline constexpr unsigned kPciInterruptPin = 0x3D;

inline constexpr std::uint16_t kPciCommandIo = 0x0001;
inline constexpr std::uint16_t kPciCommandMemory = 0x0002;
inline constexpr std::uint16_t kPciCommandMaster = 0x0004;
inline constexpr std::uint16_t kPciCommandIntxDisable = 0x0400;
inline constexpr std::uint16_t kPciStatusInterrupt = 0x0008;

struct PciIds {
  std::uint16_t vendor = 0;
  std::uint16_t device = 0;
  std::uint32_t class_code =
      0;  ///< base class, sub-class, programming interface: 0x010180 is a bus-master IDE controller
  std::uint8_t revision = 0;
  std::uint16_t subsystem_vendor = 0x1AF4;
  std::uint16_t subsystem = 0x1100;
  bool multifunction =
      false;  ///< bit 7 of the header type; set on function 0 of a device with more functions
};

/// One base address register. I/O and register BARs answer through `handler`; memory BARs (a framebuffer, a
/// ROM) are host memory mapped into the guest in `slot`.
struct PciBar {
  enum class Kind : std::uint8_t { kIo, kRegisters, kMemory, kRom };
  Kind kind = Kind::kIo;
  std::uint32_t size = 0;  ///< power of two; at least 4 (I/O), 16 (memory), 4096 (kMemory and kRom)
  bool prefetchable = false;
  IoHandler* handler = nullptr;         ///< kIo, kRegisters
  unsigned max_width = 4;               ///< kIo, kRegisters
  unsigned slot = 0;                    ///< kMemory, kRom
  std::span<std::uint8_t> memory = {};  ///< kMemory, kRom: `size` bytes
};

/// Base of every PCI chip. Under the machine lock.
class PciFunction {
 public:
  static constexpr unsigned kRomBar = 6;  ///< index of the expansion ROM among the BARs

  explicit PciFunction(const PciIds& ids);
  virtual ~PciFunction() = default;
  PciFunction(const PciFunction&) = delete;
  PciFunction& operator=(const PciFunction&) = delete;

  /// `offset` 0..255, `width` 1, 2 or 4, not crossing the end.
  [[nodiscard]] std::uint32_t config_read(unsigned offset, unsigned width) const;
  void config_write(unsigned offset, unsigned width, std::uint32_t value);

  /// Where BAR `index` is decoded now, if it is (command register, address neither 0 nor all ones).
  [[nodiscard]] std::optional<std::uint64_t> bar_address(unsigned index) const;
  [[nodiscard]] const std::array<PciBar, 7>& bars() const { return bars_; }
  [[nodiscard]] std::uint8_t interrupt_pin() const { return config_.bytes[kPciInterruptPin]; }

  /// Set by the bus when the function is plugged in.
  void connect(IrqLine intx, std::function<void()> decoding_changed);

 protected:
  /// The part of the guest-visible state that is configuration space; put it into the chip's State as "pci".
  struct Config {
    std::array<std::uint8_t, 256> bytes{};
    bool intx = false;  ///< the level the chip drives, before the disable bit
    bool operator==(const Config&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("bytes", self.bytes);
      visit("intx", self.intx);
    }
  };

  void set_bar(unsigned index, const PciBar& bar);
  /// INTA is 1. 0 means no interrupt.
  void set_interrupt_pin(std::uint8_t pin);
  /// Gives a chip-specific register its power-on value and the bits a guest may change (and those that a
  /// written 1 clears).
  void set_register(unsigned offset, unsigned width, std::uint32_t value, std::uint32_t writable,
                    std::uint32_t write_one_clears = 0);
  /// Changes a register from the chip's side, whatever is writable.
  void poke(unsigned offset, unsigned width, std::uint32_t value);
  [[nodiscard]] std::uint16_t command() const;

  /// Drives INTx.
  void set_intx(bool level);
  /// Called after a guest's write changed (or rewrote) [offset, offset + width).
  virtual void config_written(unsigned offset, unsigned width) {
    static_cast<void>(offset), static_cast<void>(width);
  }

  [[nodiscard]] const Config& config() const { return config_; }
  /// Power-on values; INTx low; BARs not decoded.
  void reset_config();
  /// Adopts saved configuration; bits that a guest cannot change keep their own values.
  void load_config(const Config& config);

 private:
  void update_intx();
  void apply(unsigned offset, std::uint8_t value);

  Config config_;
  std::array<std::uint8_t, 256> power_on_{};
  std::array<std::uint8_t, 256> writable_{};
  std::array<std::uint8_t, 256> clears_{};
  std::array<PciBar, 7> bars_{};
  IrqLine intx_;
  std::function<void()> decoding_changed_;
};

}  // namespace whistler
