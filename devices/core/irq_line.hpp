// Interrupt wires.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace whistler {

/// Where wires end: KVM's interrupt controllers, an OR gate, a recorder.
class IrqSink {
 public:
  virtual ~IrqSink() = default;
  /// Input `input` now has this level. May be called with the level it has already.
  virtual void set_irq(unsigned input, bool level) = 0;
};

/// One wire, held by value by the chip that drives it. A default one is not connected. Level-triggered: the
/// chip sets the level whenever its registers change, and after load.
class IrqLine {
 public:
  IrqLine() = default;
  IrqLine(IrqSink& sink, unsigned input) : sink_(&sink), input_(input) {}

  void set(bool level) const {
    if (sink_ != nullptr) {
      sink_->set_irq(input_, level);
    }
  }

 private:
  IrqSink* sink_ = nullptr;
  unsigned input_ = 0;
};

/// A wired OR: the output is high while any of its inputs is.
class IrqOr final : public IrqSink {
 public:
  explicit IrqOr(IrqLine output) : output_(output) {}
  void set_irq(unsigned input, bool level) override {
    const std::uint64_t mask = std::uint64_t{1} << (input & 63);
    inputs_ = level ? inputs_ | mask : inputs_ & ~mask;
    output_.set(inputs_ != 0);
  }

 private:
  IrqLine output_;
  std::uint64_t inputs_ = 0;
};

/// Remembers levels and edges, for tests.
class IrqRecorder final : public IrqSink {
 public:
  void set_irq(unsigned input, bool level) override {
    if (input >= levels_.size()) {
      levels_.resize(input + 1);
      raised_.resize(input + 1);
    }
    if (level && !levels_[input]) {
      ++raised_[input];
    }
    levels_[input] = level;
  }
  [[nodiscard]] bool level(unsigned input) const { return input < levels_.size() && levels_[input]; }
  /// How often the input went from low to high.
  [[nodiscard]] unsigned raised(unsigned input) const { return input < raised_.size() ? raised_[input] : 0; }

 private:
  std::vector<bool> levels_;
  std::vector<unsigned> raised_;
};

}  // namespace whistler
