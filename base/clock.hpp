// The guest's time. Nobody below vmm/ asks the host for it: a Clock is handed in, so tests and qtest can turn
// it by hand.
#pragma once

#include <cstdint>

namespace whistler {

/// Nanoseconds since the machine was started; never goes back; stands still while the machine is paused.
using Nanoseconds = std::int64_t;
inline constexpr Nanoseconds kNanosecondsPerSecond = 1'000'000'000;

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual Nanoseconds now() const = 0;
};

/// A clock that moves only when told to.
class ManualClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() const override { return now_; }
  void set(Nanoseconds now) { now_ = now; }
  void advance(Nanoseconds by) { now_ += by; }

 private:
  Nanoseconds now_ = 0;
};

__extension__ using Uint128 = unsigned __int128;

/// How many ticks of `hertz` fit into `elapsed`, without overflow for any machine that runs under 290 years.
[[nodiscard]] constexpr std::uint64_t ticks_in(Nanoseconds elapsed, std::uint64_t hertz) {
  using Wide = Uint128;
  return static_cast<std::uint64_t>(static_cast<Wide>(elapsed) * hertz /
                                    static_cast<Wide>(kNanosecondsPerSecond));
}

/// The first moment at which `ticks` ticks of `hertz` have passed: ticks_in(time_of_tick(n, f), f) == n.
[[nodiscard]] constexpr Nanoseconds time_of_tick(std::uint64_t ticks, std::uint64_t hertz) {
  using Wide = Uint128;
  return static_cast<Nanoseconds>((static_cast<Wide>(ticks) * kNanosecondsPerSecond + hertz - 1) / hertz);
}

}  // namespace whistler
