// RAM of a test: a vector at address 0.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "firmware/ram_writer.hpp"

namespace whistler {

class TestRam final : public RamWriter {
 public:
  explicit TestRam(std::size_t size) : bytes(size) {}
  [[nodiscard]] bool write(std::uint64_t address, std::span<const std::uint8_t> from) override {
    if (address > bytes.size() || from.size() > bytes.size() - address) {
      return false;
    }
    std::ranges::copy(from, bytes.begin() + static_cast<std::ptrdiff_t>(address));
    return true;
  }
  std::vector<std::uint8_t> bytes;
};

}  // namespace whistler
