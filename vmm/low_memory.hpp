// The first megabyte's upper part, and the BIOS: which of 0xA0000-0xFFFFF is RAM, ROM or bus, as the host
// bridge says.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "devices/chipset/i440fx.hpp"
#include "devices/core/bus.hpp"
#include "devices/core/memory_mapper.hpp"

namespace whistler {

/// Carries out the PAM and SMRAM registers with memory windows. The four states of a segment, exactly: reads
/// from RAM or from ROM (or the bus where no ROM is), and writes to RAM or to nowhere; where the two differ,
/// writes exit and are stored by hand. Under the machine lock.
class LowMemory final : public ShadowControl, private IoHandler {
 public:
  static constexpr std::uint64_t kSmramBase = 0xA0000;
  static constexpr std::uint64_t kShadowBase = 0xC0000;
  static constexpr std::uint64_t kTop = 0x100000;
  /// How many slots it uses, from its first one on: SMRAM and one for each stretch of 16 KiB.
  static constexpr unsigned kSlots = 1 + (kTop - kShadowBase) / 0x4000;

  /// `ram` begins at guest-physical 0. `bios` is a whole BIOS image; its last 128 KiB (or less) appear below
  /// 1 MiB. The memory bus gets a handler for what windows do not take. All must outlive this.
  LowMemory(MemoryMapper& mapper, unsigned first_slot, std::span<std::uint8_t> ram,
            std::span<std::uint8_t> bios);

  /// Maps the handler for trapped writes; once, at set-up.
  [[nodiscard]] Result<void> attach(Bus& memory);

  void set_shadow(unsigned segment, bool read_dram, bool write_dram) override;
  void set_smram_open(bool open) override;

 private:
  static constexpr unsigned kPieces = kSlots - 1;
  static constexpr std::uint64_t kPiece = 0x4000;
  struct Piece {
    bool read_ram = false;
    bool write_ram = false;
    bool operator==(const Piece&) const = default;
  };
  /// A stretch of equal pieces mapped as one window.
  struct Window {
    std::uint64_t address = 0;
    std::span<std::uint8_t> memory;
    MemoryMapper::Access access = MemoryMapper::Access::kReadOnly;
    [[nodiscard]] bool same(const Window& other) const {
      return address == other.address && memory.data() == other.memory.data() &&
             memory.size() == other.memory.size() && access == other.access;
    }
  };

  [[nodiscard]] Window window_of(unsigned piece) const;
  void remap();
  [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

  MemoryMapper& mapper_;
  unsigned first_slot_;
  std::span<std::uint8_t> ram_;
  std::span<std::uint8_t> rom_;  // the part of the BIOS below 1 MiB; ends at kTop
  std::array<Piece, kPieces> pieces_{};
  std::array<Window, kPieces> mapped_{};  // by the piece a window begins with
};

}  // namespace whistler
