#include "devices/legacy/uart_16550a.hpp"

#include <utility>

namespace whistler {

namespace {

constexpr std::uint8_t kIerData = 0x01;
constexpr std::uint8_t kIerTransmitterEmpty = 0x02;
constexpr std::uint8_t kIerLineStatus = 0x04;
constexpr std::uint8_t kIerModemStatus = 0x08;

// Interrupt causes as IIR shows them, highest priority first (datasheet, table 5).
constexpr std::uint8_t kIirLineStatus = 0x06;
constexpr std::uint8_t kIirData = 0x04;
constexpr std::uint8_t kIirTimeout = 0x0C;
constexpr std::uint8_t kIirTransmitterEmpty = 0x02;
constexpr std::uint8_t kIirModemStatus = 0x00;
constexpr std::uint8_t kIirNone = 0x01;
constexpr std::uint8_t kIirFifos = 0xC0;

constexpr std::uint8_t kFcrEnable = 0x01;
constexpr std::uint8_t kFcrClearReceiver = 0x02;
constexpr std::uint8_t kFcrClearTransmitter = 0x04;
constexpr std::uint8_t kFcrStored = 0xC9;

constexpr std::uint8_t kLcrDlab = 0x80;

constexpr std::uint8_t kMcrDtr = 0x01;
constexpr std::uint8_t kMcrRts = 0x02;
constexpr std::uint8_t kMcrOut1 = 0x04;
constexpr std::uint8_t kMcrOut2 = 0x08;
constexpr std::uint8_t kMcrWritable = 0x1F;

constexpr std::uint8_t kLsrDataReady = 0x01;
constexpr std::uint8_t kLsrOverrun = 0x02;
constexpr std::uint8_t kLsrErrors = 0x1E;
constexpr std::uint8_t kLsrTransmitterEmpty = 0x60;  // THRE and TEMT: bytes leave at once

constexpr std::uint8_t kMsrDeltas = 0x0F;
constexpr std::uint8_t kMsrCts = 0x10;
constexpr std::uint8_t kMsrDsr = 0x20;
constexpr std::uint8_t kMsrRi = 0x40;
constexpr std::uint8_t kMsrDcd = 0x80;

constexpr std::uint64_t kBaudBase = 115200;

/// In loopback the modem outputs are the modem inputs (datasheet, section 8.6).
std::uint8_t looped_lines(std::uint8_t mcr) {
  return static_cast<std::uint8_t>(
      ((mcr & kMcrRts) != 0 ? kMsrCts : 0) | ((mcr & kMcrDtr) != 0 ? kMsrDsr : 0) |
      ((mcr & kMcrOut1) != 0 ? kMsrRi : 0) | ((mcr & kMcrOut2) != 0 ? kMsrDcd : 0));
}

}  // namespace

Uart16550a::Uart16550a(std::string id, TimerQueue& timers, IrqLine irq, CharBackend* backend)
    : id_(std::move(id)), timers_(timers), irq_(irq), backend_(backend), timer_(timers, [this] {
        state_.timeout_pending = state_.fifo_count != 0;
        update();
      }) {}

unsigned Uart16550a::trigger_level() const {
  constexpr std::array<unsigned, 4> kLevels = {1, 4, 8, 14};
  return fifo_enabled() ? kLevels[state_.fcr >> 6] : 1;
}

/// Start, data, parity and stop bits at the programmed rate.
Nanoseconds Uart16550a::character_time() const {
  const std::uint64_t bits =
      1U + (5U + (state_.lcr & 3U)) + (state_.lcr >> 3 & 1U) + 1U + (state_.lcr >> 2 & 1U);
  const std::uint64_t divisor = state_.divisor == 0 ? 1 : state_.divisor;
  return time_of_tick(bits * divisor, kBaudBase);
}

std::uint8_t Uart16550a::interrupt_cause() const {
  if ((state_.ier & kIerLineStatus) != 0 && (state_.lsr & kLsrErrors) != 0) {
    return kIirLineStatus;
  }
  if ((state_.ier & kIerData) != 0 && state_.fifo_count >= trigger_level()) {
    return kIirData;
  }
  if ((state_.ier & kIerData) != 0 && state_.timeout_pending) {
    return kIirTimeout;
  }
  if ((state_.ier & kIerTransmitterEmpty) != 0 && state_.transmitter_empty_pending) {
    return kIirTransmitterEmpty;
  }
  if ((state_.ier & kIerModemStatus) != 0 && (state_.msr & kMsrDeltas) != 0) {
    return kIirModemStatus;
  }
  return kIirNone;
}

void Uart16550a::update() { irq_.set(interrupt_cause() != kIirNone); }

std::uint64_t Uart16550a::read(std::uint64_t offset, unsigned /*width*/) {
  const bool dlab = (state_.lcr & kLcrDlab) != 0;
  switch (offset & 7) {
    case 0: return dlab ? state_.divisor & 0xFFU : read_data();
    case 1: return dlab ? state_.divisor >> 8 : state_.ier;
    case 2: return read_iir();
    case 3: return state_.lcr;
    case 4: return state_.mcr;
    case 5: return read_lsr();
    case 6: return read_msr();
    default: return state_.scr;
  }
}

void Uart16550a::write(std::uint64_t offset, unsigned /*width*/, std::uint64_t value) {
  const auto byte = static_cast<std::uint8_t>(value);
  const bool dlab = (state_.lcr & kLcrDlab) != 0;
  switch (offset & 7) {
    case 0:
      if (dlab) {
        state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0xFF00) | byte);
      } else {
        write_data(byte);
      }
      break;
    case 1:
      if (dlab) {
        state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0x00FF) | byte << 8);
      } else {
        write_ier(byte & 0x0F);
      }
      break;
    case 2: write_fcr(byte); break;
    case 3: state_.lcr = byte; break;
    case 4: write_mcr(byte & kMcrWritable); break;
    case 7: state_.scr = byte; break;
    default: break;  // LSR and MSR are read-only here
  }
}

std::uint8_t Uart16550a::read_data() {
  const auto room_before = room();
  // An empty receiver shows its last byte again, but a FIFO shows 0, as in QEMU.
  const std::uint8_t byte =
      state_.fifo_count != 0 || !fifo_enabled() ? state_.fifo[state_.fifo_head] : std::uint8_t{0};
  if (state_.fifo_count != 0) {
    --state_.fifo_count;
    if (fifo_enabled()) {
      state_.fifo_head = static_cast<std::uint8_t>((state_.fifo_head + 1U) % kFifoSize);
    }
  }
  if (state_.fifo_count == 0) {
    state_.lsr &= static_cast<std::uint8_t>(~kLsrDataReady);
  }
  restart_timeout();
  update();
  tell_room(room_before);
  return byte;
}

std::uint8_t Uart16550a::read_iir() {
  const auto cause = interrupt_cause();
  if (cause == kIirTransmitterEmpty) {
    state_.transmitter_empty_pending = false;
    update();
  }
  return static_cast<std::uint8_t>(cause | (fifo_enabled() ? kIirFifos : 0));
}

std::uint8_t Uart16550a::read_lsr() {
  const auto value = state_.lsr;
  state_.lsr &= static_cast<std::uint8_t>(~kLsrErrors);
  update();
  return value;
}

std::uint8_t Uart16550a::read_msr() {
  if (loopback()) {
    return looped_lines(state_.mcr);
  }
  const auto value = state_.msr;
  state_.msr &= static_cast<std::uint8_t>(~kMsrDeltas);
  update();
  return value;
}

void Uart16550a::write_data(std::uint8_t value) {
  if (loopback()) {
    push(value);
  } else if (backend_ != nullptr) {
    backend_->send(value);
  }
  state_.transmitter_empty_pending = false;  // THRE falls and rises again: an edge for each byte
  update();
  state_.transmitter_empty_pending = true;
  update();
}

void Uart16550a::write_ier(std::uint8_t value) {
  const auto changed = static_cast<std::uint8_t>(value ^ state_.ier);
  state_.ier = value;
  if ((changed & kIerTransmitterEmpty) != 0) {
    // Enabling it while the transmitter is empty, as it always is here, interrupts at once.
    state_.transmitter_empty_pending = (value & kIerTransmitterEmpty) != 0;
  }
  update();
}

void Uart16550a::write_fcr(std::uint8_t value) {
  const auto room_before = room();
  if (((value ^ state_.fcr) & kFcrEnable) != 0) {
    value |= kFcrClearReceiver | kFcrClearTransmitter;
  }
  state_.fcr = (value & kFcrEnable) != 0 ? value & kFcrStored : 0;
  if ((value & kFcrClearReceiver) != 0) {
    clear_receiver();
  }
  if ((value & kFcrClearTransmitter) != 0) {
    state_.transmitter_empty_pending = true;
  }
  restart_timeout();
  update();
  tell_room(room_before);
}

void Uart16550a::write_mcr(std::uint8_t value) {
  const auto room_before = room();
  state_.mcr = value;
  update();
  tell_room(room_before);
}

void Uart16550a::clear_receiver() {
  state_.fifo = {};
  state_.fifo_head = 0;
  state_.fifo_count = 0;
  state_.lsr &= static_cast<std::uint8_t>(~kLsrDataReady);
}

void Uart16550a::push(std::uint8_t byte) {
  if (state_.fifo_count < capacity()) {
    state_.fifo[(state_.fifo_head + state_.fifo_count) % kFifoSize] = byte;
    ++state_.fifo_count;
  } else {
    state_.lsr |= kLsrOverrun;
    if (!fifo_enabled()) {
      state_.fifo[state_.fifo_head] =
          byte;  // the holding register is overwritten; a full FIFO keeps what it has
    }
  }
  state_.lsr |= kLsrDataReady;
  restart_timeout();
}

/// Bytes that stay in the FIFO for four character times without another coming or being read interrupt.
void Uart16550a::restart_timeout() {
  state_.timeout_pending = false;
  if (fifo_enabled() && state_.fifo_count != 0) {
    state_.timeout_at = timers_.clock().now() + 4 * character_time();
    timer_.arm(state_.timeout_at);
  } else {
    state_.timeout_at = 0;
    timer_.cancel();
  }
}

std::size_t Uart16550a::room() const { return loopback() ? 0 : capacity() - state_.fifo_count; }

void Uart16550a::receive(std::span<const std::uint8_t> bytes) {
  if (loopback()) {
    return;
  }
  for (const auto byte : bytes) {
    push(byte);
  }
  update();
}

void Uart16550a::tell_room(std::size_t room_before) {
  if (room_before == 0 && room() != 0 && room_hook_) {
    room_hook_();
  }
}

void Uart16550a::set_modem_lines(std::uint8_t lines) {
  lines &= static_cast<std::uint8_t>(~kMsrDeltas);
  const auto changed = static_cast<std::uint8_t>((lines ^ state_.msr) & ~kMsrDeltas);
  auto deltas = static_cast<std::uint8_t>(changed >> 4);
  if ((lines & kMsrRi) != 0) {
    deltas &= static_cast<std::uint8_t>(~(kMsrRi >> 4));  // only the end of a ring counts
  }
  state_.msr = static_cast<std::uint8_t>(lines | (state_.msr & kMsrDeltas) | deltas);
  update();
}

void Uart16550a::reset() {
  const auto room_before = room();
  state_ = {};
  timer_.cancel();
  update();
  tell_room(room_before);
}

Result<void> Uart16550a::load(const StateReader& reader) {
  State loaded;
  if (auto done = reader.get(loaded); !done) {
    return done;
  }
  const std::size_t loaded_capacity = (loaded.fcr & kFcrEnable) != 0 ? kFifoSize : 1;
  if (loaded.fifo_head >= kFifoSize || loaded.fifo_count > loaded_capacity) {
    return fail(ErrorCode::kCorrupt, id_ + ": the saved receiver FIFO is out of range");
  }
  loaded.ier &= 0x0F;
  loaded.mcr &= kMcrWritable;
  loaded.lsr = static_cast<std::uint8_t>((loaded.lsr & kLsrErrors) | kLsrTransmitterEmpty |
                                         (loaded.fifo_count != 0 ? kLsrDataReady : 0));
  state_ = loaded;
  timer_.cancel();
  if (fifo_enabled() && state_.fifo_count != 0 && !state_.timeout_pending) {
    timer_.arm(state_.timeout_at);
  }
  update();
  return {};
}

}  // namespace whistler
