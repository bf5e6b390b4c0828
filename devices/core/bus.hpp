// An address space: ports or memory-mapped registers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "devices/core/io_handler.hpp"

namespace whistler {

/// How a range takes accesses.
struct BusRange {
  std::uint64_t base = 0;    ///< first address
  std::uint64_t length = 0;  ///< in bytes, at least 1
  unsigned max_width = 4;    ///< widest access the handler takes; wider ones are split, low address first
  std::uint64_t offset = 0;  ///< added to what the handler sees as offset
};

/// Used under the machine lock; the KVM exit path and qtest call the same read() and write().
/// An access that starts in a range and is no wider than its max_width goes to it whole, even where it
/// reaches past the range's end (a 32-bit access to the one-byte IDE data port). Unclaimed bytes read as all
/// ones, and are counted.
class Bus {
 public:
  explicit Bus(std::string name) : name_(std::move(name)) {}
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  /// Maps `range` to `handler`, which must outlive the mapping. Overlap with another range is kExists, naming
  /// both.
  [[nodiscard]] Result<void> map(const BusRange& range, IoHandler& handler, std::string_view owner);
  /// Removes every range of `handler`.
  void unmap(const IoHandler& handler);

  [[nodiscard]] std::uint64_t read(std::uint64_t address, unsigned width);
  void write(std::uint64_t address, unsigned width, std::uint64_t value);

  /// A run of accesses to one address (see IoHandler::read_many), with the same effects as single ones; the
  /// range is looked up once where it takes them whole. `width` is 1, 2 or 4; `data`'s size a multiple of it.
  void read_many(std::uint64_t address, unsigned width, std::span<std::uint8_t> data);
  void write_many(std::uint64_t address, unsigned width, std::span<const std::uint8_t> data);

  /// What one range has been asked so far, for statistics.
  struct Usage {
    std::string owner;
    std::uint64_t base, length, reads, writes;
  };
  [[nodiscard]] std::vector<Usage> usage() const;
  [[nodiscard]] std::uint64_t unclaimed() const { return unclaimed_; }

 private:
  struct Mapping {
    BusRange range;
    IoHandler* handler;
    std::string owner;
    std::uint64_t reads = 0;
    std::uint64_t writes = 0;
  };
  [[nodiscard]] Mapping* find(std::uint64_t address);
  /// The mapping at `address` if it takes accesses of `width` whole.
  [[nodiscard]] Mapping* find_whole(std::uint64_t address, unsigned width);

  std::string name_;
  std::vector<Mapping> mappings_;  // sorted by base
  std::uint64_t unclaimed_ = 0;
};

}  // namespace whistler
