// The line protocol by which QEMU's device tests drive a machine without CPUs.
// Models: endianness, clock_step, clock_set, in/out b w l, read/write b w l q, read, write, memset, b64read,
// b64write, irq_intercept_in, irq_intercept_out, set_irq_in, module_load. Missing: rtas (PowerPC). A QOM path
// is accepted as it is: there is one set of interrupt lines, the GSIs. Documentation: QEMU, system/qtest.c,
// "QTest Protocol".
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/timer_queue.hpp"
#include "devices/core/bus.hpp"
#include "devices/core/irq_line.hpp"
#include "vmm/address_space.hpp"

namespace whistler {

/// GSIs as a qtest client sees them: silent until intercepted, then a line for each change.
class QtestIrqs final : public IrqSink {
 public:
  explicit QtestIrqs(std::function<void(std::string_view)> send) : send_(std::move(send)) {}
  void set_irq(unsigned input, bool level) override;
  void intercept() { intercepted_ = true; }

 private:
  std::function<void(std::string_view)> send_;
  std::vector<bool> levels_;
  bool intercepted_ = false;
};

/// Carries out command lines. A client is trusted as far as sizes go up to kMostBytes a command; malformed
/// lines are answered with FAIL. Under the machine lock.
class QtestProtocol {
 public:
  static constexpr std::uint64_t kMostBytes = 64 * 1024 * 1024;

  QtestProtocol(Bus& ports, AddressSpace& memory, ManualClock& clock, TimerQueue& timers, QtestIrqs& irqs)
      : ports_(ports), memory_(memory), clock_(clock), timers_(timers), irqs_(irqs) {}

  /// `line` without its end; the answer ends with a newline. Interrupt lines may have been sent before it.
  [[nodiscard]] std::string execute(std::string_view line);

 private:
  using Words = std::vector<std::string_view>;
  [[nodiscard]] std::string port_access(const Words& words, unsigned width, bool write);
  [[nodiscard]] std::string memory_access(const Words& words, unsigned width, bool write);
  [[nodiscard]] std::string read_block(const Words& words, bool base64);
  [[nodiscard]] std::string write_block(const Words& words, bool base64);
  [[nodiscard]] std::string fill(const Words& words);
  void advance_to(Nanoseconds moment);

  Bus& ports_;
  AddressSpace& memory_;
  ManualClock& clock_;
  TimerQueue& timers_;
  QtestIrqs& irqs_;
};

}  // namespace whistler
