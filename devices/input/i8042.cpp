#include "devices/input/i8042.hpp"

#include <utility>

#include "base/log.hpp"
#include "devices/input/scan_codes.hpp"

namespace whistler {

namespace {

constexpr std::uint64_t kDataPort = 0;
constexpr std::uint64_t kStatusPort = 4;

constexpr std::uint8_t kStatusOutputFull = 0x01;
constexpr std::uint8_t kStatusSystem = 0x04;
constexpr std::uint8_t kStatusCommand = 0x08;
constexpr std::uint8_t kStatusUnlocked = 0x10;
constexpr std::uint8_t kStatusFromMouse = 0x20;

// The command byte.
constexpr std::uint8_t kModeKeyboardIrq = 0x01;
constexpr std::uint8_t kModeMouseIrq = 0x02;
constexpr std::uint8_t kModeSystem = 0x04;
constexpr std::uint8_t kModeKeyboardOff = 0x10;
constexpr std::uint8_t kModeMouseOff = 0x20;
constexpr std::uint8_t kModeTranslate = 0x40;
constexpr std::uint8_t kModeAtReset = kModeKeyboardIrq | kModeMouseIrq;

// Commands.
constexpr std::uint8_t kReadRam = 0x20;   // to 0x3F
constexpr std::uint8_t kWriteRam = 0x60;  // to 0x7F
constexpr std::uint8_t kTestPassword = 0xA4;
constexpr std::uint8_t kMouseOff = 0xA7;
constexpr std::uint8_t kMouseOn = 0xA8;
constexpr std::uint8_t kTestMouse = 0xA9;
constexpr std::uint8_t kSelfTest = 0xAA;
constexpr std::uint8_t kTestKeyboard = 0xAB;
constexpr std::uint8_t kKeyboardOff = 0xAD;
constexpr std::uint8_t kKeyboardOn = 0xAE;
constexpr std::uint8_t kReadInputPort = 0xC0;
constexpr std::uint8_t kReadOutputPort = 0xD0;
constexpr std::uint8_t kWriteOutputPort = 0xD1;
constexpr std::uint8_t kWriteAsKeyboard = 0xD2;
constexpr std::uint8_t kWriteAsMouse = 0xD3;
constexpr std::uint8_t kWriteToMouse = 0xD4;
constexpr std::uint8_t kA20Off = 0xDD;
constexpr std::uint8_t kA20On = 0xDF;
constexpr std::uint8_t kReadTestInputs = 0xE0;
constexpr std::uint8_t kPulse = 0xF0;  // to 0xFF

constexpr std::uint8_t kNoPassword = 0xF1;
constexpr std::uint8_t kSelfTestPassed = 0x55;
constexpr std::uint8_t kInterfaceGood = 0x00;
constexpr std::uint8_t kInputPort = 0x80;  // keyboard not locked

constexpr std::uint8_t kOutputPortRun = 0x01;  // low resets the processor
constexpr std::uint8_t kOutputPortA20 = 0x02;
constexpr std::uint8_t kOutputPortKeyboardFull = 0x10;
constexpr std::uint8_t kOutputPortMouseFull = 0x20;
constexpr std::uint8_t kOutputPortStored = 0xCC;

constexpr std::uint8_t kBreakPrefix = 0xF0;  // of scan code set 2

}  // namespace

I8042::I8042(IrqLine keyboard_irq, IrqLine mouse_irq, Ps2Device& keyboard, Ps2Device& mouse,
             SystemControl& system)
    : keyboard_irq_(keyboard_irq),
      mouse_irq_(mouse_irq),
      keyboard_(keyboard),
      mouse_(mouse),
      system_(system) {
  state_.ram[0] = kModeAtReset;
  keyboard_.on_byte([this] { refill(); });
  mouse_.on_byte([this] { refill(); });
}

std::uint8_t I8042::status() const {
  std::uint8_t value = kStatusUnlocked;
  if (state_.full) {
    value |= kStatusOutputFull;
    value |= state_.from_mouse ? kStatusFromMouse : std::uint8_t{0};
  }
  if (state_.self_tested || (mode() & kModeSystem) != 0) {
    value |= kStatusSystem;
  }
  if (state_.last_write_was_command) {
    value |= kStatusCommand;
  }
  return value;
}

std::uint8_t I8042::output_port() const {
  std::uint8_t value = state_.output_port | kOutputPortRun;
  if (system_.a20()) {
    value |= kOutputPortA20;
  }
  if (state_.full) {
    value |= state_.from_mouse ? kOutputPortMouseFull : kOutputPortKeyboardFull;
  }
  return value;
}

std::uint64_t I8042::read(std::uint64_t offset, unsigned /*width*/) {
  return offset == kStatusPort ? status() : read_data();
}

/// Reading an empty buffer shows its last byte again.
std::uint8_t I8042::read_data() {
  const auto byte = state_.output;
  if (state_.full) {
    state_.full = false;
    update_irqs();  // the line falls before the next byte raises it: each byte is an edge
    refill();
  }
  return byte;
}

void I8042::write(std::uint64_t offset, unsigned /*width*/, std::uint64_t value) {
  const auto byte = static_cast<std::uint8_t>(value);
  state_.last_write_was_command = offset == kStatusPort;
  if (offset == kStatusPort) {
    write_command(byte);
  } else if (offset == kDataPort) {
    write_data(byte);
  }
}

void I8042::write_data(std::uint8_t value) {
  if (state_.command != 0) {
    finish_command(value);
    return;
  }
  state_.ram[0] &= static_cast<std::uint8_t>(~kModeKeyboardOff);  // sending turns the clock on
  keyboard_.receive(value);
  update_irqs();
}

void I8042::write_command(std::uint8_t command) {
  state_.command = 0;
  if (command >= kPulse) {
    if ((command & kOutputPortRun) == 0) {
      system_.request_reset();
    }
    return;
  }
  switch (command & 0xE0) {
    case kReadRam: answer(state_.ram[command & 0x1F]); return;
    case kWriteRam: state_.command = command; return;
    default: break;
  }
  switch (command) {
    case kTestPassword: answer(kNoPassword); break;
    case kMouseOff: set_mode(mode() | kModeMouseOff); break;
    case kMouseOn: set_mode(mode() & static_cast<std::uint8_t>(~kModeMouseOff)); break;
    case kTestMouse:
    case kTestKeyboard: answer(kInterfaceGood); break;
    case kSelfTest:
      state_.self_tested = true;
      answer(kSelfTestPassed);
      break;
    case kKeyboardOff: set_mode(mode() | kModeKeyboardOff); break;
    case kKeyboardOn: set_mode(mode() & static_cast<std::uint8_t>(~kModeKeyboardOff)); break;
    case kReadInputPort: answer(kInputPort); break;
    case kReadOutputPort: answer(output_port()); break;
    case kWriteOutputPort:
    case kWriteAsKeyboard:
    case kWriteAsMouse:
    case kWriteToMouse: state_.command = command; break;
    case kA20Off: system_.set_a20(false); break;
    case kA20On: system_.set_a20(true); break;
    case kReadTestInputs: answer(0); break;
    default:
      log_once(LogLevel::kDebug, "i8042 command " + std::to_string(command),
               "i8042: command " + std::to_string(command) + " is not modelled, ignored");
      break;
  }
}

void I8042::finish_command(std::uint8_t argument) {
  const auto command = std::exchange(state_.command, std::uint8_t{0});
  switch (command) {
    case kWriteRam: set_mode(argument); break;
    case kWriteOutputPort: write_output_port(argument); break;
    case kWriteAsKeyboard: answer(argument); break;
    case kWriteAsMouse: answer(argument, true); break;
    case kWriteToMouse:
      state_.ram[0] &= static_cast<std::uint8_t>(~kModeMouseOff);
      mouse_.receive(argument);
      break;
    default: state_.ram[command & 0x1F] = argument; break;  // 61-7F
  }
}

void I8042::write_output_port(std::uint8_t value) {
  state_.output_port = value & kOutputPortStored;
  system_.set_a20((value & kOutputPortA20) != 0);
  if ((value & kOutputPortRun) == 0) {
    system_.request_reset();
  }
}

void I8042::set_mode(std::uint8_t value) {
  state_.ram[0] = value;
  update_irqs();
  refill();
}

/// The controller's own answer: it comes before what the devices have to say, but after the byte in the
/// buffer.
void I8042::answer(std::uint8_t byte, bool as_mouse) {
  state_.reply = byte;
  state_.reply_waits = true;
  state_.reply_as_mouse = as_mouse;
  refill();
}

void I8042::refill() {
  if (state_.full) {
    return;
  }
  if (state_.reply_waits) {
    state_.reply_waits = false;
    offer(state_.reply, state_.reply_as_mouse);
    return;
  }
  if ((mode() & kModeKeyboardOff) == 0) {
    offer_keyboard_byte();
  }
  if (!state_.full && (mode() & kModeMouseOff) == 0 && mouse_.has_byte()) {
    offer(mouse_.take_byte(), true);
  }
}

/// With translation, set 2's break prefix is swallowed and turns into bit 7 of the byte that follows.
void I8042::offer_keyboard_byte() {
  while (!state_.full && keyboard_.has_byte()) {
    const auto byte = keyboard_.take_byte();
    if ((mode() & kModeTranslate) == 0) {
      offer(byte, false);
    } else if (byte == kBreakPrefix) {
      state_.break_prefix = true;
    } else {
      const std::uint8_t release = std::exchange(state_.break_prefix, false) ? 0x80 : 0x00;
      offer(set2_to_set1(byte) | release, false);
    }
  }
}

void I8042::offer(std::uint8_t byte, bool from_mouse) {
  state_.output = byte;
  state_.full = true;
  state_.from_mouse = from_mouse;
  update_irqs();
}

void I8042::update_irqs() {
  const bool keyboard_enabled = (mode() & kModeKeyboardIrq) != 0 && (mode() & kModeKeyboardOff) == 0;
  keyboard_irq_.set(state_.full && !state_.from_mouse && keyboard_enabled);
  mouse_irq_.set(state_.full && state_.from_mouse && (mode() & kModeMouseIrq) != 0);
}

void I8042::reset() {
  state_ = {};
  state_.ram[0] = kModeAtReset;
  update_irqs();
}

Result<void> I8042::load(const StateReader& reader) {
  State loaded;
  if (auto done = reader.get(loaded); !done) {
    return done;
  }
  state_ = loaded;
  state_.output_port &= kOutputPortStored;
  update_irqs();
  return {};
}

}  // namespace whistler
