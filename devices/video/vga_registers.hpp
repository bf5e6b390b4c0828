// The registers of a VGA, ports 0x3B0..0x3DF.
// Models: miscellaneous output, feature control, input status (retrace from the CRTC's timing and the clock),
// sequencer, graphics controller, attribute controller with its flip-flop, CRTC with write protection, DAC of
// 6 or 8 bits with PEL mask. Missing: the vertical retrace interrupt, switch sense (bit 4 of input status 0),
// the subsystem enable port 0x3C3, light pen. Documentation: IBM Video Subsystem Technical Reference (VGA),
// 1992; FreeVGA. Register widths and power-on values (all zero) are those of QEMU's VGA.
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.hpp"
#include "base/result.hpp"

namespace whistler {

// Register indices, as the IBM manual names them.
namespace sequencer {
enum : unsigned { kReset, kClockingMode, kMapMask, kCharacterMapSelect, kMemoryMode };
}
namespace graphics {
enum : unsigned {
  kSetReset,
  kEnableSetReset,
  kColorCompare,
  kDataRotate,
  kReadMapSelect,
  kGraphicsMode,
  kMiscellaneous,
  kColorDontCare,
  kBitMask
};
}
namespace attribute {
enum : unsigned { kModeControl = 0x10, kOverscan, kColorPlaneEnable, kPelPanning, kColorSelect };
}
namespace crtc {
enum : unsigned {
  kHorizontalTotal = 0x00,
  kHorizontalDisplayEnd = 0x01,
  kVerticalTotal = 0x06,
  kOverflow = 0x07,
  kPresetRowScan = 0x08,
  kMaximumScanLine = 0x09,
  kCursorStart = 0x0A,
  kCursorEnd = 0x0B,
  kStartAddressHigh = 0x0C,
  kStartAddressLow = 0x0D,
  kCursorLocationHigh = 0x0E,
  kCursorLocationLow = 0x0F,
  kVerticalRetraceStart = 0x10,
  kVerticalRetraceEnd = 0x11,
  kVerticalDisplayEnd = 0x12,
  kOffset = 0x13,
  kUnderlineLocation = 0x14,
  kModeControl = 0x17,
  kLineCompare = 0x18
};
}

/// Under the machine lock.
class VgaRegisters {
 public:
  struct State {
    std::uint8_t MISC = 0;  ///< miscellaneous output
    std::uint8_t FCR = 0;   ///< feature control
    std::uint8_t sr_index = 0;
    std::array<std::uint8_t, 8> SR{};
    std::uint8_t gr_index = 0;
    std::array<std::uint8_t, 16> GR{};
    std::uint8_t ar_index = 0;  ///< bit 5: palette address source (the screen shows)
    bool ar_data_next = false;  ///< the flip-flop
    std::array<std::uint8_t, 21> AR{};
    std::uint8_t cr_index = 0;
    std::array<std::uint8_t, 256> CR{};  ///< 0x19 and up are plain storage
    std::uint8_t pel_mask = 0xFF;
    std::uint8_t dac_state = 0;      ///< 3 after the read index was written, else 0
    std::uint8_t dac_component = 0;  ///< 0..2: red, green, blue is next
    std::uint8_t dac_read_index = 0;
    std::uint8_t dac_write_index = 0;
    std::array<std::uint8_t, 3> dac_latch{};
    std::array<std::uint8_t, 768> dac{};
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("MISC", self.MISC);
      visit("FCR", self.FCR);
      visit("sr_index", self.sr_index);
      visit("SR", self.SR);
      visit("gr_index", self.gr_index);
      visit("GR", self.GR);
      visit("ar_index", self.ar_index);
      visit("ar_data_next", self.ar_data_next);
      visit("AR", self.AR);
      visit("cr_index", self.cr_index);
      visit("CR", self.CR);
      visit("pel_mask", self.pel_mask);
      visit("dac_state", self.dac_state);
      visit("dac_component", self.dac_component);
      visit("dac_read_index", self.dac_read_index);
      visit("dac_write_index", self.dac_write_index);
      visit("dac_latch", self.dac_latch);
      visit("dac", self.dac);
    }
  };

  static constexpr std::uint16_t kFirstPort = 0x3B0;
  static constexpr std::uint16_t kPorts = 48;

  explicit VgaRegisters(const Clock& clock) : clock_(clock) {}

  /// `port` 0x3B0..0x3DF; ports that do not exist, or not in this (colour or mono) emulation, read as 0xFF.
  [[nodiscard]] std::uint8_t read(std::uint16_t port);
  void write(std::uint16_t port, std::uint8_t value);

  void reset() { state_ = {}; }
  [[nodiscard]] const State& state() const { return state_; }
  /// Adopts a saved state; kCorrupt, and nothing changes, if it could not have been saved.
  [[nodiscard]] Result<void> load(const State& state);

  /// DAC entry `index` after the PEL mask, as 0x00RRGGBB.
  [[nodiscard]] std::uint32_t color(unsigned index, bool eight_bit) const;
  /// The DAC's width is a matter of the VBE extension; reads in 6-bit mode give 6 bits.
  void set_eight_bit_dac(bool eight_bit) { eight_bit_dac_ = eight_bit; }

  /// What switching a VBE mode on does to the VGA: graphics at 0xA0000, one address row a line, no split and
  /// no doubling; chain-4 on all planes unless the mode is `planar`.
  void prepare_for_vbe(unsigned width, unsigned height, unsigned pitch, bool planar);

  /// Lines of the display area and before which the next one starts at address 0, from their scattered bits.
  [[nodiscard]] unsigned display_lines() const;
  [[nodiscard]] unsigned line_compare() const;

 private:
  [[nodiscard]] bool hidden(std::uint16_t port) const;
  [[nodiscard]] std::uint8_t input_status_1() const;
  void write_attribute(std::uint8_t value);
  void write_crtc(std::uint8_t value);
  [[nodiscard]] std::uint8_t read_dac();
  void write_dac(std::uint8_t value);

  const Clock& clock_;
  State state_;
  bool eight_bit_dac_ = false;
};

}  // namespace whistler
