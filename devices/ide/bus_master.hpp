// One channel of the PIIX3's bus-master IDE engine.
// Models: BMICX, BMISX, BMIDTPX, the physical region descriptor table, the interrupt latch.
// Missing: nothing known. What a table is worth is found before a transfer starts, so one that is too short
// moves nothing. Documentation: Intel 290550, sections 2.7 and 3.3.3; Programming Interface for Bus Master
// IDE Controller, revision 1.0.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "devices/core/guest_memory.hpp"
#include "devices/core/irq_line.hpp"

namespace whistler {

/// Guest memory for one transfer, straight from the descriptor table.
struct DmaPlan {
  enum class Outcome : std::uint8_t {
    kReady,     ///< `pieces` hold exactly the bytes asked for
    kTooShort,  ///< the table ends before
    kFault,     ///< it names an address without RAM
    kNoBus,     ///< bus mastering is disabled in the PCI command register: no memory is reached
  };
  Outcome outcome = Outcome::kReady;
  bool more = false;  ///< the table goes on after the bytes asked for
  std::vector<iovec> pieces;
};

/// Walks a list of pieces front to back.
class PieceCursor {
 public:
  explicit PieceCursor(std::span<const iovec> pieces) : pieces_(pieces) {}
  /// The next `bytes`, or what is left.
  [[nodiscard]] std::vector<iovec> take(std::uint64_t bytes);

 private:
  std::span<const iovec> pieces_;
  std::size_t used_ = 0;  // of the first piece
};

/// Copies `from` into the pieces / the pieces into `to`, as far as both go.
void scatter(std::span<const iovec> pieces, std::span<const std::uint8_t> from);
void gather(std::span<const iovec> pieces, std::span<std::uint8_t> to);

/// Under the machine lock.
class BusMaster {
 public:
  struct State {
    std::uint8_t BMICX = 0;
    std::uint8_t BMISX = 0;
    std::uint32_t BMIDTPX = 0;
    bool intrq = false;
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("BMICX", self.BMICX);
      visit("BMISX", self.BMISX);
      visit("BMIDTPX", self.BMIDTPX);
      visit("intrq", self.intrq);
    }
  };

  static constexpr std::uint8_t kStart = 0x01;      ///< BMICX
  static constexpr std::uint8_t kToMemory = 0x08;   ///< BMICX
  static constexpr std::uint8_t kActive = 0x01;     ///< BMISX
  static constexpr std::uint8_t kError = 0x02;      ///< BMISX
  static constexpr std::uint8_t kInterrupt = 0x04;  ///< BMISX

  BusMaster(const GuestMemory& memory, IrqLine irq) : memory_(memory), irq_(irq) {}

  /// `hook` is called when the guest starts the engine.
  void on_start(std::function<void()> hook) { start_hook_ = std::move(hook); }
  /// The bus master bit of the PCI command register.
  void set_enabled(bool enabled) { enabled_ = enabled; }

  /// Bytes 0..7 of the channel's registers.
  [[nodiscard]] std::uint8_t read(unsigned offset) const;
  void write(unsigned offset, std::uint8_t value);

  /// Whether a drive may move data now.
  [[nodiscard]] bool active() const { return (state_.BMISX & kActive) != 0; }
  /// The memory for `bytes` more than 0. `storage` lends its allocation.
  [[nodiscard]] DmaPlan plan(std::uint64_t bytes, std::vector<iovec> storage = {}) const;
  /// A drive moves data from now on: a stop by the guest takes effect when it has ended.
  void begin() { transferring_ = true; }
  /// The drive has ended its transfer; with `more` the table was not used up and the engine stays active.
  void end(bool more);
  /// The transfer met an address that cannot be reached: the engine stops with its error bit.
  void fault();
  /// The drive was reset.
  void abort();

  /// The drive's interrupt wire, after nIEN. Its rising edge sets the interrupt bit.
  void set_intrq(bool level);

  void reset();
  [[nodiscard]] const State& state() const { return state_; }
  void load(const State& state);

 private:
  const GuestMemory& memory_;
  IrqLine irq_;
  std::function<void()> start_hook_;
  bool enabled_ = false;
  bool transferring_ = false;
  State state_;
};

}  // namespace whistler
