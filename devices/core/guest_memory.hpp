// Guest RAM as devices see it when they act as bus masters.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace whistler {

/// A view of the machine's RAM by guest-physical address; it does not own the memory. Addresses come from the
/// guest and may be anything: what is not RAM is not written, and reads as all ones, as on an empty bus.
/// Under the machine lock, though a span handed out may be used by I/O in flight without it.
class GuestMemory {
 public:
  /// Adds RAM at `base`. At set-up only; ranges must not overlap.
  void add(std::uint64_t base, std::span<std::uint8_t> bytes) { regions_.push_back({base, bytes}); }

  /// The RAM at `address`: at most `length` bytes, fewer where the region ends, none where there is no RAM.
  [[nodiscard]] std::span<std::uint8_t> slice(std::uint64_t address, std::uint64_t length) const {
    for (const auto& region : regions_) {
      if (address - region.base < region.bytes.size()) {
        const auto at = address - region.base;
        return region.bytes.subspan(at, std::min<std::uint64_t>(length, region.bytes.size() - at));
      }
    }
    return {};
  }

  /// Copies out of / into RAM. False if any byte lay outside; the rest is copied all the same.
  bool read(std::uint64_t address, std::span<std::uint8_t> to) const {
    bool complete = true;
    for_each(address, to.size(), [&](std::span<std::uint8_t> ram, std::size_t at, std::size_t length) {
      if (ram.empty()) {
        std::memset(&to[at], 0xFF, length);
        complete = false;
      } else {
        std::memcpy(&to[at], ram.data(), length);
      }
    });
    return complete;
  }
  bool write(std::uint64_t address, std::span<const std::uint8_t> from) const {
    bool complete = true;
    for_each(address, from.size(), [&](std::span<std::uint8_t> ram, std::size_t at, std::size_t length) {
      if (ram.empty()) {
        complete = false;
      } else {
        std::memcpy(ram.data(), &from[at], length);
      }
    });
    return complete;
  }

 private:
  struct Region {
    std::uint64_t base;
    std::span<std::uint8_t> bytes;
  };

  /// Calls `piece(ram or empty, position, length)` for each stretch of [address, address + length).
  template <typename Piece>
  void for_each(std::uint64_t address, std::size_t length, Piece piece) const {
    for (std::size_t done = 0; done < length;) {
      const auto ram = slice(address + done, length - done);
      // Outside RAM, go on byte by byte only up to the next page: regions begin and end on pages.
      const std::size_t hole = std::min<std::size_t>(length - done, 4096 - ((address + done) & 4095));
      const std::size_t step = ram.empty() ? hole : ram.size();
      piece(ram, done, step);
      done += step;
    }
  }

  std::vector<Region> regions_;
};

}  // namespace whistler
