// The PS/2 keyboard and mouse as one sink for viewers. No guest-visible state of its own.
#pragma once

#include "devices/core/input.hpp"
#include "devices/input/ps2_keyboard.hpp"
#include "devices/input/ps2_mouse.hpp"

namespace whistler {

class Ps2Input final : public InputSink {
 public:
  /// Both must outlive the sink.
  Ps2Input(Ps2Keyboard& keyboard, Ps2Mouse& mouse) : keyboard_(keyboard), mouse_(mouse) {}

  /// The screen that absolute positions refer to, in pixels: a pixel becomes one count of the mouse.
  void set_screen_size(unsigned width, unsigned height);

  void key(KeyNumber key, bool down) override { keyboard_.key(key, down); }
  void pointer_move(int dx, int dy, int wheel, unsigned buttons) override {
    mouse_.move(dx, dy, wheel, buttons);
  }
  void pointer_place(unsigned x, unsigned y, int wheel, unsigned buttons) override;
  [[nodiscard]] bool absolute() const override { return false; }
  [[nodiscard]] std::size_t keys_pending() const override { return keyboard_.keys_pending(); }
  [[nodiscard]] std::uint8_t leds() const override { return keyboard_.leds(); }

 private:
  Ps2Keyboard& keyboard_;
  Ps2Mouse& mouse_;
  unsigned width_ = 640;
  unsigned height_ = 480;
  bool placed_ = false;
  int last_x_ = 0;
  int last_y_ = 0;
};

}  // namespace whistler
