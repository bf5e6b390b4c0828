// The firmware configuration device: how the BIOS is told about the machine.
// Models: selector, data port, directory of named files, DMA interface (read, skip, select, write), signature
// and ID. Missing: the memory-mapped variant of other architectures; writes through the data port (ignored,
// as QEMU has done since 2.4); call-backs on selection. Documentation: QEMU, docs/specs/fw_cfg.rst.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "devices/core/device.hpp"
#include "devices/core/guest_memory.hpp"
#include "devices/core/io_handler.hpp"

namespace whistler {

/// Items are added at set-up; the guest reads them, and writes those files that allow it. Ports on a PC:
/// ports() at 0x510 (two ports, widest access 2), dma() at 0x514 (eight ports, widest access 8, or 4 where
/// the bus has no more).
class FwCfg final : public Device {
 public:
  static constexpr std::uint16_t kSignature = 0x0000;  ///< "QEMU"
  static constexpr std::uint16_t kId = 0x0001;         ///< bit 0: selector and data; bit 1: DMA
  static constexpr std::uint16_t kFileDirectory = 0x0019;
  static constexpr std::uint16_t kFirstFile = 0x0020;
  static constexpr std::uint16_t kLastFile = 0x3FFF;
  static constexpr std::size_t kMaxNameLength = 55;  ///< of a file, without the closing zero

  explicit FwCfg(const GuestMemory& memory);

  /// A numbered item; replaces what `key` held. kInvalid for the device's own keys and those of files.
  [[nodiscard]] Result<void> add_item(std::uint16_t key, std::vector<std::uint8_t> bytes);
  /// A named file; keys are given in the order of the names, so add all files before the machine runs.
  /// kExists for a name already taken, kInvalid for an empty or too long one, kNoSpace when there are too
  /// many.
  [[nodiscard]] Result<void> add_file(std::string_view name, std::vector<std::uint8_t> bytes,
                                      bool writable = false);
  /// Gives a file that exists another content. For the board, between a reset and what the guest does next.
  void set_file(std::string_view name, std::vector<std::uint8_t> bytes);
  /// What a file holds now (guests write some), or nothing for an unknown name. Valid until the next
  /// add_file.
  [[nodiscard]] std::span<const std::uint8_t> file(std::string_view name) const;

  /// Offset 0: selector (16 bits, write only); offset 1: data (8 bits, read only).
  [[nodiscard]] IoHandler& ports() { return ports_; }
  /// Offset 0: high half, offset 4: low half of the big-endian address of a request; writing the low half
  /// starts it.
  [[nodiscard]] IoHandler& dma() { return dma_; }

  [[nodiscard]] std::string_view id() const override { return "fw-cfg"; }
  /// Selects the signature, forgets the DMA address, and gives written files their first content.
  void reset() override;
  void save(StateWriter& writer) const override;
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  struct File {
    std::vector<std::uint8_t> bytes;
    std::vector<std::uint8_t> original;  ///< kept for writable files only
    bool writable = false;
  };
  struct State {
    std::uint16_t selector = 0;
    std::uint32_t offset = 0;
    std::uint64_t dma_address = 0;
    std::vector<std::uint8_t> written;  ///< saved only: the writable files, one after the other by name
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("selector", self.selector);
      visit("offset", self.offset);
      visit("dma_address", self.dma_address);
      visit("written", self.written);
    }
  };
  class Ports final : public IoHandler {
   public:
    explicit Ports(FwCfg& owner) : owner_(owner) {}
    [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
    void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

   private:
    FwCfg& owner_;
  };
  class Dma final : public IoHandler {
   public:
    explicit Dma(FwCfg& owner) : owner_(owner) {}
    [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
    void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

   private:
    FwCfg& owner_;
  };

  void number_files();
  void select(std::uint16_t key);
  [[nodiscard]] std::uint8_t read_byte();
  void run_dma();
  [[nodiscard]] bool transfer(std::uint32_t control, std::uint32_t length, std::uint64_t address);
  [[nodiscard]] std::span<const std::uint8_t> selected() const;
  [[nodiscard]] std::span<std::uint8_t> selected_writable();  ///< empty unless a writable file is selected

  const GuestMemory& memory_;
  Ports ports_{*this};
  Dma dma_{*this};
  std::map<std::uint16_t, std::vector<std::uint8_t>> items_;
  std::map<std::string, File, std::less<>> files_;
  std::vector<std::map<std::string, File, std::less<>>::iterator> by_key_;  // index: key - kFirstFile
  State state_;
};

}  // namespace whistler
