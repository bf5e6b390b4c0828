#include "devices/video/vga_registers.hpp"

#include <string>

#include "base/log.hpp"

namespace whistler {
namespace {

/// Bits that exist in each register; the others read as zero.
constexpr std::array<std::uint8_t, 8> kSequencerBits = {0x03, 0x3D, 0x0F, 0x3F, 0x0E, 0x00, 0x00, 0xFF};
constexpr std::array<std::uint8_t, 16> kGraphicsBits = {0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF};

/// Bits of attribute register `index` that exist.
std::uint8_t attribute_bits(unsigned index) {
  switch (index) {
    case attribute::kModeControl: return 0xEF;
    case attribute::kOverscan: return 0xFF;
    case attribute::kColorPlaneEnable: return 0x3F;
    case attribute::kPelPanning:
    case attribute::kColorSelect: return 0x0F;
    default: return 0x3F;
  }
}

constexpr std::uint8_t with(unsigned value, unsigned mask, unsigned bits) {
  return static_cast<std::uint8_t>((value & ~mask) | bits);
}

/// A DAC component of 6 bits as 8: the lowest bit is repeated, so that pictures equal QEMU's.
constexpr std::uint32_t widen(unsigned component) {
  const unsigned six = component & 0x3F;
  return (six << 2) | ((six & 1) * 3);
}

}  // namespace

bool VgaRegisters::hidden(std::uint16_t port) const {
  const bool color = (state_.MISC & 1) != 0;
  return color ? port < 0x3C0 : port >= 0x3D0;
}

std::uint8_t VgaRegisters::read(std::uint16_t port) {
  if (hidden(port)) {
    return 0xFF;
  }
  switch (port) {
    case 0x3C0: return state_.ar_data_next ? 0 : state_.ar_index;
    case 0x3C1: {
      const unsigned index = state_.ar_index & 0x1F;
      return index < state_.AR.size() ? state_.AR[index] : 0;
    }
    case 0x3C4: return state_.sr_index;
    case 0x3C5: return state_.SR[state_.sr_index & 7];
    case 0x3C6: return state_.pel_mask;
    case 0x3C7: return state_.dac_state;
    case 0x3C8: return state_.dac_write_index;
    case 0x3C9: return read_dac();
    case 0x3CA: return state_.FCR;
    case 0x3CC: return state_.MISC;
    case 0x3CE: return state_.gr_index;
    case 0x3CF: return state_.GR[state_.gr_index & 15];
    case 0x3B4:
    case 0x3D4: return state_.cr_index;
    case 0x3B5:
    case 0x3D5: return state_.CR[state_.cr_index];
    case 0x3BA:
    case 0x3DA: state_.ar_data_next = false; return input_status_1();
    default: break;
  }
  // 0x3C2 (input status 0), 0x3C3, 0x3CB and 0x3CD exist but have nothing to say; the rest is an empty bus.
  return port >= 0x3C0 && port <= 0x3CF ? 0x00 : 0xFF;
}

void VgaRegisters::write(std::uint16_t port, std::uint8_t value) {
  if (hidden(port)) {
    return;
  }
  switch (port) {
    case 0x3C0: write_attribute(value); break;
    case 0x3C2: state_.MISC = value & 0xEF; break;
    case 0x3C4: state_.sr_index = value & 7; break;
    case 0x3C5: state_.SR[state_.sr_index & 7] = value & kSequencerBits[state_.sr_index & 7]; break;
    case 0x3C6: state_.pel_mask = value; break;
    case 0x3C7:
      state_.dac_read_index = value;
      state_.dac_component = 0;
      state_.dac_state = 3;
      break;
    case 0x3C8:
      state_.dac_write_index = value;
      state_.dac_component = 0;
      state_.dac_state = 0;
      break;
    case 0x3C9: write_dac(value); break;
    case 0x3CE: state_.gr_index = value & 15; break;
    case 0x3CF: state_.GR[state_.gr_index & 15] = value & kGraphicsBits[state_.gr_index & 15]; break;
    case 0x3B4:
    case 0x3D4: state_.cr_index = value; break;
    case 0x3B5:
    case 0x3D5: write_crtc(value); break;
    case 0x3BA:
    case 0x3DA: state_.FCR = value & 0x10; break;
    default:
      log_once(LogLevel::kDebug, "vga port " + std::to_string(port),
               "vga: write to port " + std::to_string(port) + ", which is not modelled");
      break;
  }
}

void VgaRegisters::write_attribute(std::uint8_t value) {
  if (!state_.ar_data_next) {
    state_.ar_index = value & 0x3F;
  } else if (const unsigned index = state_.ar_index & 0x1F; index < state_.AR.size()) {
    state_.AR[index] = value & attribute_bits(index);
  }
  state_.ar_data_next = !state_.ar_data_next;
}

void VgaRegisters::write_crtc(std::uint8_t value) {
  const bool is_protected = (state_.CR[crtc::kVerticalRetraceEnd] & 0x80) != 0;
  if (!is_protected || state_.cr_index > crtc::kOverflow) {
    state_.CR[state_.cr_index] = value;
  } else if (state_.cr_index == crtc::kOverflow) {
    // Protection spares the line compare bit, which is no timing.
    state_.CR[crtc::kOverflow] = with(state_.CR[crtc::kOverflow], 0x10, value & 0x10);
  }
}

std::uint8_t VgaRegisters::read_dac() {
  const auto value = state_.dac[state_.dac_read_index * 3U + state_.dac_component];
  if (++state_.dac_component == 3) {
    state_.dac_component = 0;
    ++state_.dac_read_index;
  }
  return eight_bit_dac_ ? value : value & 0x3F;
}

void VgaRegisters::write_dac(std::uint8_t value) {
  state_.dac_latch[state_.dac_component] = value;
  if (++state_.dac_component == 3) {  // an entry changes whole
    state_.dac_component = 0;
    for (unsigned i = 0; i < 3; ++i) {
      state_.dac[state_.dac_write_index * 3U + i] = state_.dac_latch[i];
    }
    ++state_.dac_write_index;
  }
}

std::uint32_t VgaRegisters::color(unsigned index, bool eight_bit) const {
  const auto* entry = &state_.dac[std::size_t{index & state_.pel_mask & 0xFF} * 3];
  const auto component = [&](unsigned i) { return eight_bit ? std::uint32_t{entry[i]} : widen(entry[i]); };
  return component(0) << 16 | component(1) << 8 | component(2);
}

Result<void> VgaRegisters::load(const State& state) {
  // Indices are masked wherever they are used; this one is not.
  if (state.dac_component > 2) {
    return fail(ErrorCode::kCorrupt,
                "vga: dac_component is " + std::to_string(state.dac_component) + ", above 2");
  }
  state_ = state;
  return {};
}

unsigned VgaRegisters::display_lines() const {
  const unsigned overflow = state_.CR[crtc::kOverflow];
  return (state_.CR[crtc::kVerticalDisplayEnd] | (overflow & 0x02) << 7 | (overflow & 0x40) << 3) + 1U;
}

unsigned VgaRegisters::line_compare() const {
  return state_.CR[crtc::kLineCompare] | (state_.CR[crtc::kOverflow] & 0x10U) << 4 |
         (state_.CR[crtc::kMaximumScanLine] & 0x40U) << 3;
}

// The beam's place follows from the time alone: pictures start at moment 0 and repeat.
std::uint8_t VgaRegisters::input_status_1() const {
  constexpr std::uint8_t kNotDisplaying = 0x01;
  constexpr std::uint8_t kVerticalRetrace = 0x08;
  const auto& cr = state_.CR;
  const unsigned overflow = cr[crtc::kOverflow];
  std::uint64_t dot_clock = (state_.MISC & 0x0C) == 0x04 ? 28'322'000 : 25'175'000;
  if ((state_.SR[sequencer::kClockingMode] & 0x08) != 0) {
    dot_clock /= 2;
  }
  const std::uint64_t character_clock = dot_clock / ((state_.SR[sequencer::kClockingMode] & 1) != 0 ? 8 : 9);
  std::uint64_t line_characters = cr[crtc::kHorizontalTotal] + 5U;
  std::uint64_t visible_characters = cr[crtc::kHorizontalDisplayEnd] + 1U;
  std::uint64_t lines = (cr[crtc::kVerticalTotal] | (overflow & 0x01) << 8 | (overflow & 0x20) << 4) + 2U;
  std::uint64_t visible_lines = display_lines();
  std::uint64_t retrace_start =
      cr[crtc::kVerticalRetraceStart] | (overflow & 0x04) << 6 | (overflow & 0x80) << 2;
  // The end is given by its low four bits only.
  std::uint64_t retrace_lines = (cr[crtc::kVerticalRetraceEnd] - retrace_start) & 0x0F;
  // Timings that no monitor takes (nothing programmed yet, or a VBE mode beyond the CRTC): those of 640x480.
  const std::uint64_t pictures = character_clock / (line_characters * lines);
  if (pictures < 20 || pictures > 300 || visible_lines >= lines || retrace_start >= lines) {
    line_characters = 100;
    visible_characters = 80;
    lines = 525;
    visible_lines = 480;
    retrace_start = 490;
    retrace_lines = 2;
  }
  const std::uint64_t character = ticks_in(clock_.now(), character_clock) % (line_characters * lines);
  const std::uint64_t line = character / line_characters;
  std::uint8_t status = 0;
  if (line >= visible_lines || character % line_characters >= visible_characters) {
    status |= kNotDisplaying;
  }
  if (line >= retrace_start && line < retrace_start + (retrace_lines == 0 ? 16 : retrace_lines)) {
    status |= kVerticalRetrace | kNotDisplaying;
  }
  return status;
}

void VgaRegisters::prepare_for_vbe(unsigned width, unsigned height, unsigned pitch, bool planar) {
  auto& cr = state_.CR;
  const unsigned last_line = height - 1;
  state_.GR[graphics::kMiscellaneous] = with(state_.GR[graphics::kMiscellaneous], 0x0D, 0x05);
  state_.GR[graphics::kGraphicsMode] = with(state_.GR[graphics::kGraphicsMode], 0x60, planar ? 0x00 : 0x40);
  cr[crtc::kModeControl] |= 0x03;
  cr[crtc::kOffset] = static_cast<std::uint8_t>(pitch >> 3);
  cr[crtc::kHorizontalDisplayEnd] = static_cast<std::uint8_t>((width >> 3) - 1);
  cr[crtc::kVerticalDisplayEnd] = static_cast<std::uint8_t>(last_line);
  cr[crtc::kOverflow] =
      with(cr[crtc::kOverflow], 0x42, (last_line >> 7 & 0x02) | (last_line >> 3 & 0x40) | 0x10);
  cr[crtc::kLineCompare] = 0xFF;
  cr[crtc::kMaximumScanLine] = with(cr[crtc::kMaximumScanLine], 0x9F, 0x40);
  if (planar) {
    state_.SR[sequencer::kClockingMode] &= 0xF7;
  } else {
    state_.SR[sequencer::kMemoryMode] |= 0x08;
    state_.SR[sequencer::kMapMask] |= 0x0F;
  }
}

}  // namespace whistler
