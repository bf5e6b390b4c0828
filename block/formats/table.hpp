// A table of a file, such as a block map, of which only the pages in use are in memory.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "block/block_device.hpp"

namespace whistler::formats {

/// Entries of 4 or 8 bytes in a file. The memory used is bounded, however large the image says its table is;
/// changes are written at once.
class Table {
 public:
  enum class Order : std::uint8_t { kLittle, kBig };
  struct Shape {
    std::string what = {};  ///< for messages: "vdi block map"
    std::uint64_t offset = 0;
    std::uint64_t entries = 0;
    unsigned entry_bytes = 4;
    Order order = Order::kLittle;
  };

  Table(BlockDevice& file, Shape shape) : file_(file), shape_(std::move(shape)) {}

  [[nodiscard]] std::uint64_t entries() const { return shape_.entries; }
  [[nodiscard]] std::uint64_t end() const { return shape_.offset + shape_.entries * shape_.entry_bytes; }
  /// kCorrupt if the entry lies beyond the table's or the file's end.
  [[nodiscard]] Task<Result<std::uint64_t>> get(std::uint64_t index);
  /// The largest value below `limit` among the first `count` entries, read in large pieces and not kept.
  [[nodiscard]] Task<Result<std::optional<std::uint64_t>>> highest(std::uint64_t count, std::uint64_t limit);
  /// Not more than one at a time.
  [[nodiscard]] Task<Result<void>> set(std::uint64_t index, std::uint64_t value);

 private:
  static constexpr std::uint64_t kPageBytes = 4096;
  static constexpr std::size_t kMaxPages = 2048;
  using Page = std::array<std::uint8_t, kPageBytes>;

  [[nodiscard]] std::uint64_t decode(const std::uint8_t* at) const;
  void encode(std::uint8_t* at, std::uint64_t value) const;

  BlockDevice& file_;
  Shape shape_;
  std::unordered_map<std::uint64_t, Page> pages_;
  std::uint64_t changes_ = 0;  ///< counts set(), to see whether a page read meanwhile may be old
};

}  // namespace whistler::formats
