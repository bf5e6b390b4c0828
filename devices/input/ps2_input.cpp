#include "devices/input/ps2_input.hpp"

#include <algorithm>

namespace whistler {

namespace {
constexpr unsigned kPlaceRange = 32768;  // InputSink::pointer_place's positions
constexpr unsigned kMaxScreen = 16384;
}  // namespace

void Ps2Input::set_screen_size(unsigned width, unsigned height) {
  width_ = std::clamp(width, 1U, kMaxScreen);
  height_ = std::clamp(height, 1U, kMaxScreen);
  placed_ = false;
}

void Ps2Input::pointer_place(unsigned x, unsigned y, int wheel, unsigned buttons) {
  const auto pixel_x = static_cast<int>(std::min(x, kPlaceRange - 1) * width_ / kPlaceRange);
  const auto pixel_y = static_cast<int>(std::min(y, kPlaceRange - 1) * height_ / kPlaceRange);
  // The first position only says where the pointer starts from.
  const int dx = placed_ ? pixel_x - last_x_ : 0;
  const int dy = placed_ ? pixel_y - last_y_ : 0;
  placed_ = true;
  last_x_ = pixel_x;
  last_y_ = pixel_y;
  mouse_.move(dx, dy, wheel, buttons);
}

}  // namespace whistler
