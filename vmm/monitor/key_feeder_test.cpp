#include "vmm/monitor/key_feeder.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <string>

using namespace whistler;

namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;

/// Writes down what it is given: "+1E" for a press, "-1E" for a release.
class Keyboard final : public InputSink {
 public:
  void key(KeyNumber key, bool down) override {
    log += down ? '+' : '-';
    log += std::to_string(key);
    unread = 1;
  }
  void pointer_move(int, int, int, unsigned) override {}
  void pointer_place(unsigned, unsigned, int, unsigned) override {}
  [[nodiscard]] bool absolute() const override { return false; }
  [[nodiscard]] std::size_t keys_pending() const override { return unread; }
  [[nodiscard]] std::uint8_t leds() const override { return 0; }
  std::string log;
  std::size_t unread = 0;
};

struct Rig {
  ManualClock time;
  TimerQueue timers{time};
  Keyboard keyboard;
  BiosKeyBuffer bios;
  std::vector<std::uint64_t> told;
  KeyFeeder feeder{timers, keyboard,
                   KeyFeeder::Guest{.ready = [this] { return keyboard.unread == 0; },
                                    .bios_buffer = [this] { return bios; },
                                    .all_read = [this](std::uint64_t id) { told.push_back(id); }}};

  void pass(Nanoseconds span) {
    for (const auto end = time.now() + span; time.now() < end;) {
      time.advance(kMillisecond);
      timers.run_expired();
    }
  }
};

constexpr std::array<KeyFeeder::Change, 4> kTwoKeys = {{{1, true}, {1, false}, {2, true}, {2, false}}};

}  // namespace

TEST_CASE("key feeder: the next change waits until the guest has read the last one") {
  Rig rig;
  const auto id = rig.feeder.add(kTwoKeys, 0);
  rig.pass(100 * kMillisecond);
  CHECK(rig.keyboard.log == "+1");
  CHECK(rig.feeder.left() == 4);
  rig.keyboard.unread = 0;
  rig.pass(2 * kMillisecond);
  CHECK(rig.keyboard.log == "+1-1");
  rig.keyboard.unread = 0;
  rig.pass(2 * kMillisecond);
  rig.keyboard.unread = 0;
  rig.pass(2 * kMillisecond);
  CHECK(rig.keyboard.log == "+1-1+2-2");
  CHECK(rig.told.empty());
  rig.keyboard.unread = 0;
  rig.pass(2 * kMillisecond);
  CHECK(rig.told == std::vector<std::uint64_t>{id});
  CHECK(rig.feeder.left() == 0);
}

TEST_CASE("key feeder: the interval is kept even by a quick guest") {
  Rig rig;
  rig.feeder.add(kTwoKeys, 50 * kMillisecond);
  rig.keyboard.unread = 0;
  rig.pass(45 * kMillisecond);
  CHECK(rig.keyboard.log == "+1");
  rig.pass(10 * kMillisecond);
  CHECK(rig.keyboard.log == "+1-1");
}

TEST_CASE("key feeder: keys that a BIOS keeps hold the next ones back") {
  Rig rig;
  rig.bios = {.head = 0x1E, .tail = 0x26};
  rig.feeder.add(kTwoKeys, 0);
  rig.pass(100 * kMillisecond);
  CHECK(rig.keyboard.log.empty());
  rig.bios.head = 0x24;
  rig.pass(2 * kMillisecond);
  CHECK(rig.keyboard.log == "+1");
}

TEST_CASE("key feeder: a BIOS buffer that nobody empties is a leftover") {
  Rig rig;
  rig.bios = {.head = 0x3C, .tail = 0x26};
  rig.feeder.add(kTwoKeys, 0);
  rig.pass(6000 * kMillisecond);
  CHECK(rig.keyboard.log == "+1");
}

TEST_CASE("key feeder: offsets that are no BIOS's are not waited for") {
  Rig rig;
  rig.bios = {.head = 0x1234, .tail = 0x5678};
  rig.feeder.add(kTwoKeys, 0);
  CHECK(rig.keyboard.log == "+1");
}

TEST_CASE("key feeder: nothing to type is done at once") {
  Rig rig;
  const auto id = rig.feeder.add({}, 0);
  CHECK(rig.told == std::vector<std::uint64_t>{id});
}
