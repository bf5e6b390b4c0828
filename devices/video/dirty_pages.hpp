// Which pages of the video memory were written since the last picture.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/core/memory_mapper.hpp"

namespace whistler {

/// One bit a page, in the layout MemoryMapper::collect_dirty() fills. Ranges may reach past the end: the rest
/// is ignored.
class DirtyPages {
 public:
  explicit DirtyPages(std::uint64_t bytes)
      : pages_(bytes / MemoryMapper::kPageSize), words_((pages_ + 63) / 64) {}

  void mark(std::uint64_t offset, std::uint64_t length) {
    for_pages(offset, length, [this](std::uint64_t page) {
      words_[page / 64] |= std::uint64_t{1} << (page % 64);
      return true;
    });
  }
  void mark_all() { std::fill(words_.begin(), words_.end(), ~std::uint64_t{0}); }
  void clear() { std::fill(words_.begin(), words_.end(), 0); }

  /// True if any page was written, or any of those that hold [offset, offset + length).
  [[nodiscard]] bool any() const {
    return std::any_of(words_.begin(), words_.end(), [](std::uint64_t word) { return word != 0; });
  }
  [[nodiscard]] bool any(std::uint64_t offset, std::uint64_t length) const {
    return !for_pages(offset, length,
                      [this](std::uint64_t page) { return (words_[page / 64] >> (page % 64) & 1) == 0; });
  }

  [[nodiscard]] std::span<std::uint64_t> words() { return words_; }

 private:
  /// Calls `visit(page)` for each page of the range while it returns true; says whether it always did.
  template <typename Visit>
  bool for_pages(std::uint64_t offset, std::uint64_t length, Visit visit) const {
    if (length == 0) {
      return true;
    }
    const std::uint64_t last = (offset + length - 1) / MemoryMapper::kPageSize;
    for (std::uint64_t page = offset / MemoryMapper::kPageSize; page <= last && page < pages_; ++page) {
      if (!visit(page)) {
        return false;
      }
    }
    return true;
  }

  std::uint64_t pages_;
  std::vector<std::uint64_t> words_;
};

}  // namespace whistler
