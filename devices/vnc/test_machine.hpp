// A display and an input sink for the tests of this folder.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "devices/core/display.hpp"
#include "devices/core/input.hpp"

namespace whistler {

class RecordingSink : public InputSink {
 public:
  void key(KeyNumber key, bool down) override {
    constexpr char kDigits[] = "0123456789abcdef";
    note(std::string(down ? "+" : "-") + kDigits[key >> 4] + kDigits[key & 15]);
  }
  void pointer_move(int dx, int dy, int wheel, unsigned buttons) override {
    note("move " + std::to_string(dx) + " " + std::to_string(dy) + " " + std::to_string(wheel) + " " +
         std::to_string(buttons));
  }
  void pointer_place(unsigned x, unsigned y, int wheel, unsigned buttons) override {
    note("place " + std::to_string(x) + " " + std::to_string(y) + " " + std::to_string(wheel) + " " +
         std::to_string(buttons));
  }
  [[nodiscard]] bool absolute() const override { return absolute_pointer; }
  [[nodiscard]] std::size_t keys_pending() const override { return pending; }
  [[nodiscard]] std::uint8_t leds() const override { return lights; }

  std::vector<std::string> events;
  bool absolute_pointer = true;
  std::size_t pending = 0;
  std::uint8_t lights = 0;
  std::condition_variable changed;

 private:
  void note(std::string event) {
    events.push_back(std::move(event));
    changed.notify_all();
  }
};

class PaintedDisplay : public DisplaySource {
 public:
  void update() override { ++updates; }
  [[nodiscard]] const Surface& surface() const override { return picture; }
  [[nodiscard]] std::optional<TextScreen> text() const override { return std::nullopt; }
  void fill(std::uint32_t pixel) {
    const std::vector<std::uint32_t> row(picture.width(), pixel);
    for (unsigned y = 0; y < picture.height(); ++y) {
      picture.put(0, y, row);
    }
  }

  Surface picture;
  unsigned updates = 0;
};

}  // namespace whistler
