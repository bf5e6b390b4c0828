#include "devices/legacy/port61.hpp"

#include <utility>

namespace whistler {

namespace {
constexpr std::uint8_t kTimer2Gate = 0x01;
constexpr std::uint8_t kWritable = 0x0F;
constexpr std::uint8_t kRefresh = 0x10;
constexpr std::uint8_t kTimer2Output = 0x20;
/// The bit changes with each refresh request: timer 1 makes one every 18 cycles of 1.193182 MHz, 15.085 us.
constexpr std::uint64_t kRefreshHertz = 1'193'182 / 18;
}  // namespace

Port61::Port61(const Clock& clock, Timer2 timer2) : clock_(clock), timer2_(std::move(timer2)) {}

std::uint64_t Port61::read(std::uint64_t /*offset*/, unsigned /*width*/) {
  std::uint8_t value = state_.control;
  if (ticks_in(clock_.now(), kRefreshHertz) % 2 != 0) {
    value |= kRefresh;
  }
  if (timer2_.output && timer2_.output()) {
    value |= kTimer2Output;
  }
  return value;
}

void Port61::write(std::uint64_t /*offset*/, unsigned /*width*/, std::uint64_t value) {
  state_.control = static_cast<std::uint8_t>(value) & kWritable;
  drive_gate();
}

void Port61::drive_gate() const {
  if (timer2_.set_gate) {
    timer2_.set_gate((state_.control & kTimer2Gate) != 0);
  }
}

void Port61::reset() {
  state_ = {};
  drive_gate();
}

Result<void> Port61::load(const StateReader& reader) {
  State loaded;
  if (auto done = reader.get(loaded); !done) {
    return done;
  }
  state_.control = loaded.control & kWritable;
  drive_gate();
  return {};
}

}  // namespace whistler
