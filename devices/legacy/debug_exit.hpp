// The port by which a test guest ends the machine with a status of its choice.
// Models: QEMU's isa-debug-exit, accesses of 1 to 4 bytes at any offset. Reads give 0. Missing: nothing. No
// state.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "devices/core/io_handler.hpp"

namespace whistler {

class DebugExit final : public IoHandler {
 public:
  /// A write of v calls `on_exit((v << 1) | 1)`, so 0 cannot be had; only the low 8 bits survive as an exit
  /// status.
  explicit DebugExit(std::function<void(int)> on_exit) : on_exit_(std::move(on_exit)) {}

  [[nodiscard]] std::uint64_t read(std::uint64_t, unsigned) override { return 0; }
  void write(std::uint64_t, unsigned, std::uint64_t value) override {
    if (on_exit_) {
      on_exit_(static_cast<int>((static_cast<std::uint32_t>(value) << 1) | 1));
    }
  }

 private:
  std::function<void(int)> on_exit_;
};

}  // namespace whistler
