#include "devices/video/edid.hpp"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "base/bytes.hpp"

namespace whistler {
namespace {

using Block = std::array<std::uint8_t, 128>;

constexpr std::size_t kFirstDescriptor = 54;
constexpr std::size_t kDescriptorSize = 18;

/// Low byte, and the upper four bits for a byte that two fields share.
constexpr std::uint8_t low(unsigned v) { return static_cast<std::uint8_t>(v); }
constexpr std::uint8_t high_pair(unsigned first, unsigned second) {
  return static_cast<std::uint8_t>((first >> 8 & 15) << 4 | (second >> 8 & 15));
}

/// Detailed timing: CVT reduced blanking has fixed horizontal blanking, and at least 460 us of vertical
/// blanking.
void put_detailed_timing(std::uint8_t* at, unsigned width, unsigned height, unsigned mm_across,
                         unsigned mm_down) {
  constexpr unsigned kHorizontalBlank = 160, kFrontPorch = 48, kHorizontalSync = 32;
  constexpr unsigned kVerticalFront = 3, kVerticalSync = 5, kRefresh = 60;
  const unsigned vertical_blank = std::max(14U, height * 460 * kRefresh / (1'000'000 - 460 * kRefresh) + 1);
  const unsigned clock_10khz = (width + kHorizontalBlank) * (height + vertical_blank) / 1000 * kRefresh / 10;
  store_le<std::uint16_t>(at, static_cast<std::uint16_t>(std::min(clock_10khz, 0xFFFFU)));
  at[2] = low(width);
  at[3] = low(kHorizontalBlank);
  at[4] = high_pair(width, kHorizontalBlank);
  at[5] = low(height);
  at[6] = low(vertical_blank);
  at[7] = high_pair(height, vertical_blank);
  at[8] = kFrontPorch;
  at[9] = kHorizontalSync;
  at[10] = kVerticalFront << 4 | kVerticalSync;
  at[11] = 0;
  at[12] = low(mm_across);
  at[13] = low(mm_down);
  at[14] = high_pair(mm_across, mm_down);
  at[17] = 0x18;  // digital separate sync
}

/// Display descriptor `tag` with text, ended by a line feed and padded by blanks.
void put_text(std::uint8_t* at, std::uint8_t tag, std::string_view text) {
  at[3] = tag;
  std::fill_n(at + 5, 13, std::uint8_t{' '});
  const auto* end = std::copy(text.begin(), text.end(), at + 5);
  at[end - at] = '\n';
}

void put_range_limits(std::uint8_t* at) {
  at[3] = 0xFD;
  at[5] = 50;  // Hz, vertical
  at[6] = 125;
  at[7] = 30;  // kHz, horizontal
  at[8] = 160;
  at[9] = 250;    // 10 MHz of pixel clock
  at[10] = 0x01;  // range limits only
  at[11] = '\n';
  std::fill_n(at + 12, 6, std::uint8_t{' '});
}

/// A standard timing at 60 Hz: columns / 8 - 31, and the aspect ratio in the upper two bits.
void put_standard_timings(std::uint8_t* at) {
  constexpr std::uint8_t k16To10 = 0x00, k4To3 = 0x40, k5To4 = 0x80, k16To9 = 0xC0;
  struct Timing {
    unsigned columns;
    std::uint8_t aspect;
  };
  constexpr std::array<Timing, 8> kTimings = {{{1920, k16To9},
                                               {1920, k16To10},
                                               {1680, k16To10},
                                               {1600, k4To3},
                                               {1440, k16To10},
                                               {1280, k5To4},
                                               {1280, k4To3},
                                               {1280, k16To10}}};
  for (const auto& timing : kTimings) {
    *at++ = static_cast<std::uint8_t>(timing.columns / 8 - 31);
    *at++ = timing.aspect;
  }
}

}  // namespace

std::array<std::uint8_t, 128> make_edid(unsigned width, unsigned height) {
  width = std::clamp(width, 8U, 4088U) & ~7U;
  height = std::clamp(height, 8U, 4088U);
  const unsigned mm_across = width * 254 / 1000;  // 100 dots an inch
  const unsigned mm_down = height * 254 / 1000;
  Block edid{};
  std::fill_n(edid.begin() + 1, 6, std::uint8_t{0xFF});
  store_be<std::uint16_t>(&edid[8], ('W' - '@') << 10 | ('H' - '@') << 5 | ('S' - '@'));
  store_le<std::uint16_t>(&edid[10], 1);  // product
  edid[16] = 0xFF;                        // the next byte is the model's year
  edid[17] = 2006 - 1990;
  edid[18] = 1;
  edid[19] = 4;
  edid[20] = 0xA5;  // digital, 8 bits a colour, DisplayPort
  edid[21] = low(mm_across / 10);
  edid[22] = low(mm_down / 10);
  edid[23] = 120;   // gamma 2.2
  edid[24] = 0x06;  // sRGB, the first timing is the preferred one
  constexpr std::array<std::uint8_t, 10> kSrgb = {0xEE, 0x91, 0xA3, 0x54, 0x4C, 0x99, 0x26, 0x0F, 0x50, 0x54};
  std::copy(kSrgb.begin(), kSrgb.end(), &edid[25]);
  edid[35] = 0x21;  // 640x480 and 800x600 at 60 Hz
  edid[36] = 0x08;  // 1024x768 at 60 Hz
  put_standard_timings(&edid[38]);
  put_detailed_timing(&edid[kFirstDescriptor], width, height, mm_across, mm_down);
  put_range_limits(&edid[kFirstDescriptor + kDescriptorSize]);
  put_text(&edid[kFirstDescriptor + 2 * kDescriptorSize], 0xFC, "Whistler");
  edid[kFirstDescriptor + 3 * kDescriptorSize + 3] = 0x10;  // unused
  edid[127] = static_cast<std::uint8_t>(-std::accumulate(edid.begin(), edid.end() - 1, 0));
  return edid;
}

}  // namespace whistler
