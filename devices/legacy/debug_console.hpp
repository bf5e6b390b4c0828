// The debug console of virtual machines: each byte written goes out, reads tell that it is there.
// Models: Bochs' port 0xE9 and SeaBIOS' and OVMF's port 0x402. Missing: nothing. No state.
#pragma once

#include <cstdint>

#include "devices/core/char_backend.hpp"
#include "devices/core/io_handler.hpp"

namespace whistler {

/// One byte at offset 0.
class DebugConsole final : public IoHandler {
 public:
  /// What a read gives: "somebody is here".
  static constexpr std::uint8_t kPresent = 0xE9;

  /// `backend` must outlive the port.
  explicit DebugConsole(CharBackend& backend) : backend_(backend) {}

  [[nodiscard]] std::uint64_t read(std::uint64_t, unsigned) override { return kPresent; }
  void write(std::uint64_t, unsigned, std::uint64_t value) override {
    backend_.send(static_cast<std::uint8_t>(value));
  }

 private:
  CharBackend& backend_;
};

}  // namespace whistler
