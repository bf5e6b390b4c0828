// The Bochs VBE extension ("dispi"): sixteen-bit index and data registers that set modes beyond VGA.
// Models: ID 0xB0C0..0xB0C5, resolution, depths 4, 8, 15, 16, 24 and 32, bank, virtual screen, panning,
// capabilities, 8-bit DAC, memory size. While a mode is on, every register is kept at a value whose picture
// lies within the video memory. Missing: the linear framebuffer at a fixed address and the bank granularity
// of 32 KiB of early Bochs (it is 64 KiB). Documentation: Bochs, "VBE Display Interface"; behaviour at the
// limits as in QEMU.
#pragma once

#include <array>
#include <cstdint>

namespace whistler {

/// Under the machine lock.
class VbeDispi {
 public:
  enum Register : std::uint16_t {
    kId,
    kXres,
    kYres,
    kBpp,
    kEnable,
    kBank,
    kVirtWidth,
    kVirtHeight,
    kXOffset,
    kYOffset,
    kVideoMemory64K,
  };
  enum EnableBits : std::uint16_t {
    kEnabled = 0x01,
    kGetCaps = 0x02,
    k8BitDac = 0x20,
    kLfbEnabled = 0x40,
    kNoClearMem = 0x80,
  };
  static constexpr unsigned kMaxWidth = 16000;
  static constexpr unsigned kMaxHeight = 12000;

  struct State {
    std::uint16_t index = 0;
    std::array<std::uint16_t, kVideoMemory64K> regs{0xB0C5};
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("index", self.index);
      visit("regs", self.regs);
    }
  };

  /// `vram_size` in bytes, a multiple of 1 MiB.
  explicit VbeDispi(std::uint64_t vram_size) : vram_size_(vram_size) {}

  [[nodiscard]] std::uint16_t read(std::uint16_t index) const;
  /// True if this switched a mode on: the card then sets up its VGA part, and clears the picture unless
  /// kNoClearMem.
  bool write(std::uint16_t index, std::uint16_t value);

  [[nodiscard]] std::uint16_t index() const { return state_.index; }
  void set_index(std::uint16_t index) { state_.index = index; }

  [[nodiscard]] bool enabled() const { return (state_.regs[kEnable] & kEnabled) != 0; }
  [[nodiscard]] bool eight_bit_dac() const { return (state_.regs[kEnable] & k8BitDac) != 0; }

  // While enabled() only: the picture. All of it lies within the video memory.
  [[nodiscard]] unsigned width() const { return state_.regs[kXres]; }
  [[nodiscard]] unsigned height() const { return state_.regs[kYres]; }
  [[nodiscard]] unsigned bpp() const { return state_.regs[kBpp]; }
  [[nodiscard]] bool planar() const { return bpp() == 4; }
  [[nodiscard]] std::uint32_t pitch() const {
    return bytes_of(state_.regs[kVirtWidth]);
  }  ///< bytes from line to line
  /// The byte at which the picture starts; a multiple of 4 for planar modes.
  [[nodiscard]] std::uint32_t start() const;
  /// Where the window at 0xA0000 starts: bytes, or for planar modes bytes of one plane. 0 while not enabled.
  [[nodiscard]] std::uint32_t bank_offset() const {
    return enabled() ? std::uint32_t{state_.regs[kBank]} << 16 : 0;
  }

  void reset() { state_ = {}; }
  [[nodiscard]] const State& state() const { return state_; }
  /// Adopts a saved state, out-of-range values made to fit as if the guest had written them.
  void load(const State& state);

 private:
  /// Bytes of video memory that `pixels` of one line take.
  [[nodiscard]] std::uint32_t bytes_of(std::uint32_t pixels) const;
  void make_fit();

  std::uint64_t vram_size_;
  State state_;
};

}  // namespace whistler
