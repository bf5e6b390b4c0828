// Guest RAM as a boot loader sees it, without naming the machine.
#pragma once

#include <cstdint>
#include <span>

namespace whistler {

/// Copies `bytes` to a guest-physical address before the machine runs. False if any byte lies outside RAM.
class RamWriter {
 public:
  virtual ~RamWriter() = default;
  [[nodiscard]] virtual bool write(std::uint64_t address, std::span<const std::uint8_t> bytes) = 0;
};

}  // namespace whistler
