#include "devices/legacy/test_device.hpp"

namespace whistler {

std::uint64_t TestDevice::Latch::read(std::uint64_t offset, unsigned width) {
  return (state.latch >> (8 * (offset & 3))) & all_ones(width);
}

void TestDevice::Latch::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  const auto shift = 8 * (offset & 3);
  const auto mask = all_ones(width) << shift;
  state.latch = static_cast<std::uint32_t>((state.latch & ~mask) | ((value << shift) & mask));
}

void TestDevice::Flush::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  if (offset == 0 && width == 4 && page) {
    page(value & ~std::uint64_t{0xFFF});
  }
}

void TestDevice::Lines::write(std::uint64_t offset, unsigned, std::uint64_t value) {
  if (offset < kLines) {
    irqs.set_irq(static_cast<unsigned>(offset), value != 0);
  }
}

std::uint64_t TestDevice::Memory::read(std::uint64_t offset, unsigned width) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < width && offset + i < bytes.size(); ++i) {
    value |= std::uint64_t{bytes[offset + i]} << (8 * i);
  }
  return value;
}

void TestDevice::Memory::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  for (unsigned i = 0; i < width && offset + i < bytes.size(); ++i) {
    bytes[offset + i] = static_cast<std::uint8_t>(value >> (8 * i));
  }
}

}  // namespace whistler
