// Registers as the bus sees them.
#pragma once

#include <cstdint>
#include <span>

namespace whistler {

/// What answers reads and writes of a range of ports or memory. `offset` is relative to the range (plus the
/// offset given when it was mapped), `width` is 1, 2, 4 or 8 bytes and never more than the range was mapped
/// with; bits of `value` above the width are zero. Never fails, never blocks. Called under the machine lock.
class IoHandler {
 public:
  virtual ~IoHandler() = default;
  [[nodiscard]] virtual std::uint64_t read(std::uint64_t offset, unsigned width) = 0;
  virtual void write(std::uint64_t offset, unsigned width, std::uint64_t value) = 0;

  /// A run of accesses to one offset, as a string instruction (INS, OUTS) makes them: `data` holds the values
  /// one after the other, low byte first; its size is a multiple of `width`. The effects are those of as many
  /// single accesses; a handler whose register is a stream of data overrides these to move it at once.
  virtual void read_many(std::uint64_t offset, unsigned width, std::span<std::uint8_t> data);
  virtual void write_many(std::uint64_t offset, unsigned width, std::span<const std::uint8_t> data);
};

/// All ones of `width` bytes: what an access nobody answers reads.
[[nodiscard]] constexpr std::uint64_t all_ones(unsigned width) {
  return width >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * width)) - 1;
}

}  // namespace whistler
