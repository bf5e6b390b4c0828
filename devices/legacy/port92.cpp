#include "devices/legacy/port92.hpp"

#include <utility>

namespace whistler {

namespace {
constexpr std::uint8_t kFastReset = 0x01;
constexpr std::uint8_t kA20 = 0x02;
}  // namespace

Port92::Port92(std::function<void()> on_reset, std::function<void(bool)> on_a20)
    : on_reset_(std::move(on_reset)), on_a20_(std::move(on_a20)) {}

std::uint64_t Port92::read(std::uint64_t /*offset*/, unsigned /*width*/) { return state_.value; }

void Port92::write(std::uint64_t /*offset*/, unsigned /*width*/, std::uint64_t value) {
  const auto byte = static_cast<std::uint8_t>(value);
  const bool pulse = (byte & kFastReset) != 0 && (state_.value & kFastReset) == 0;
  set_a20((byte & kA20) != 0);
  state_.value = byte;
  if (pulse) {
    request_reset();
  }
}

void Port92::set_a20(bool enabled) {
  const bool changed = enabled != a20();
  state_.value = static_cast<std::uint8_t>((state_.value & ~kA20) | (enabled ? kA20 : 0));
  if (changed && on_a20_) {
    on_a20_(enabled);
  }
}

bool Port92::a20() const { return (state_.value & kA20) != 0; }

void Port92::request_reset() {
  if (on_reset_) {
    on_reset_();
  }
}

void Port92::reset() {
  set_a20(true);
  state_ = {};
}

Result<void> Port92::load(const StateReader& reader) {
  State loaded;
  if (auto done = reader.get(loaded); !done) {
    return done;
  }
  set_a20((loaded.value & kA20) != 0);
  state_ = loaded;
  return {};
}

}  // namespace whistler
