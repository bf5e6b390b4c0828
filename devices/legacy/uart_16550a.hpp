// A serial port.
// Models: National Semiconductor PC16550D: eight registers, divisor latch, 16-byte receiver FIFO with
// trigger levels, transmitter FIFO, interrupt priorities (line status, data, character timeout, transmitter
// empty, modem status), loopback, scratch register. Bytes written leave at once whatever the baud rate; the
// modem inputs CTS, DSR and DCD are on.
// Missing: baud-rate timing of the transmitter, parity and framing errors, break towards the backend, DMA
// mode pins.
// Differs: OUT2 does not gate the interrupt, as in QEMU.
// Documentation: PC16550D datasheet (National Semiconductor, June 1995), section 8.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "base/timer_queue.hpp"
#include "devices/core/char_backend.hpp"
#include "devices/core/device.hpp"
#include "devices/core/io_handler.hpp"
#include "devices/core/irq_line.hpp"

namespace whistler {

/// Offsets 0-7, one byte wide.
class Uart16550a final : public Device, public IoHandler, public CharReceiver {
 public:
  /// `backend` may be null (nothing is connected; bytes are dropped), else it and `timers` must outlive the
  /// port.
  Uart16550a(std::string id, TimerQueue& timers, IrqLine irq, CharBackend* backend);

  [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

  /// Free places of the receiver: the FIFO's, or one without FIFO; none in loopback mode, where the line is
  /// cut off.
  [[nodiscard]] std::size_t room() const override;
  /// Bytes beyond room() overrun, as on a real line.
  void receive(std::span<const std::uint8_t> bytes) override;
  void on_room(std::function<void()> hook) override { room_hook_ = std::move(hook); }

  /// The modem's outputs, as MSR has them: CTS 0x10, DSR 0x20, RI 0x40, DCD 0x80.
  void set_modem_lines(std::uint8_t lines);

  [[nodiscard]] std::string_view id() const override { return id_; }
  void reset() override;
  void save(StateWriter& writer) const override { writer.put(state_); }
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  static constexpr std::size_t kFifoSize = 16;
  struct State {
    std::uint8_t ier = 0;
    std::uint8_t fcr = 0;
    std::uint8_t lcr = 0;
    std::uint8_t mcr = 0x08;  ///< OUT2 on, as QEMU resets it
    std::uint8_t lsr = 0x60;
    std::uint8_t msr = 0xB0;
    std::uint8_t scr = 0;
    std::uint16_t divisor = 0x000C;  ///< 9600 baud
    std::array<std::uint8_t, kFifoSize> fifo{};
    std::uint8_t fifo_head = 0;
    std::uint8_t fifo_count = 0;
    bool transmitter_empty_pending = false;  ///< the THRE interrupt, cleared by reading IIR or writing THR
    bool timeout_pending = false;            ///< the character timeout
    Nanoseconds timeout_at = 0;              ///< when it comes, if the FIFO holds bytes below its trigger
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("ier", self.ier);
      visit("fcr", self.fcr);
      visit("lcr", self.lcr);
      visit("mcr", self.mcr);
      visit("lsr", self.lsr);
      visit("msr", self.msr);
      visit("scr", self.scr);
      visit("divisor", self.divisor);
      visit("fifo", self.fifo);
      visit("fifo_head", self.fifo_head);
      visit("fifo_count", self.fifo_count);
      visit("transmitter_empty_pending", self.transmitter_empty_pending);
      visit("timeout_pending", self.timeout_pending);
      visit("timeout_at", self.timeout_at);
    }
  };

  [[nodiscard]] bool fifo_enabled() const { return (state_.fcr & 1) != 0; }
  [[nodiscard]] bool loopback() const { return (state_.mcr & 0x10) != 0; }
  [[nodiscard]] std::size_t capacity() const { return fifo_enabled() ? kFifoSize : 1; }
  [[nodiscard]] unsigned trigger_level() const;
  [[nodiscard]] Nanoseconds character_time() const;
  [[nodiscard]] std::uint8_t interrupt_cause() const;

  [[nodiscard]] std::uint8_t read_data();
  [[nodiscard]] std::uint8_t read_iir();
  [[nodiscard]] std::uint8_t read_lsr();
  [[nodiscard]] std::uint8_t read_msr();
  void write_data(std::uint8_t value);
  void write_ier(std::uint8_t value);
  void write_fcr(std::uint8_t value);
  void write_mcr(std::uint8_t value);

  void push(std::uint8_t byte);
  void clear_receiver();
  void restart_timeout();
  void update();
  void tell_room(std::size_t room_before);

  std::string id_;
  TimerQueue& timers_;
  IrqLine irq_;
  CharBackend* backend_;
  std::function<void()> room_hook_;
  State state_;
  Timer timer_;
};

}  // namespace whistler
