#include "devices/vnc/pointer.hpp"

#include <algorithm>

namespace whistler {
namespace {

constexpr unsigned kAbsoluteMax = 32767;
constexpr unsigned kRelativeZero = 0x7FFF;
constexpr unsigned kMaskWheelUp = 8;
constexpr unsigned kMaskWheelDown = 16;

unsigned buttons_from(unsigned mask) {
  return ((mask & 1) != 0 ? kButtonLeft : 0) | ((mask & 2) != 0 ? kButtonMiddle : 0) |
         ((mask & 4) != 0 ? kButtonRight : 0);
}

unsigned to_absolute(unsigned at, unsigned size) {
  return size < 2 ? 0 : std::min(at, size - 1) * kAbsoluteMax / (size - 1);
}

/// The way from one coordinate to the next; on reaching an edge, a whole screen further.
int way(unsigned from, unsigned to, unsigned size) {
  const int distance = static_cast<int>(to) - static_cast<int>(from);
  const int screen = static_cast<int>(size);
  if (distance < 0 && to == 0) {
    return distance - screen;
  }
  if (distance > 0 && to + 1 >= size) {
    return distance + screen;
  }
  return distance;
}

}  // namespace

/// A turn of the wheel is a press of buttons 4 (up) or 5 (down).
int PointerTranslator::wheel_from(unsigned mask) {
  const unsigned pressed = mask & ~mask_;
  mask_ = mask;
  return ((pressed & kMaskWheelUp) != 0 ? 1 : 0) - ((pressed & kMaskWheelDown) != 0 ? 1 : 0);
}

void PointerTranslator::place(unsigned x, unsigned y, unsigned mask, unsigned width, unsigned height,
                              InputSink& sink) {
  x = std::min(x, width > 0 ? width - 1 : 0);
  y = std::min(y, height > 0 ? height - 1 : 0);
  const int wheel = wheel_from(mask);
  const Position from = last_.value_or(Position{x, y});
  last_ = Position{x, y};
  if (sink.absolute()) {
    sink.pointer_place(to_absolute(x, width), to_absolute(y, height), wheel, buttons_from(mask));
  } else {
    sink.pointer_move(way(from.x, x, width), way(from.y, y, height), wheel, buttons_from(mask));
  }
}

void PointerTranslator::move(unsigned x, unsigned y, unsigned mask, InputSink& sink) {
  const int wheel = wheel_from(mask);
  const auto distance = [](unsigned at) { return static_cast<int>(at) - static_cast<int>(kRelativeZero); };
  sink.pointer_move(distance(x), distance(y), wheel, buttons_from(mask));
}

void PointerTranslator::release_all(InputSink& sink) {
  if (buttons_from(mask_) != 0) {
    sink.pointer_move(0, 0, 0, 0);
  }
  mask_ = 0;
}

}  // namespace whistler
