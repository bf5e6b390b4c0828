// Memory for requests, aligned for direct I/O and used again: fresh pages cost more than the copy into them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "base/bytes.hpp"

namespace whistler::nbd {

class Buffer {
 public:
  static constexpr std::size_t kAlignment = 4096;

  Buffer() = default;
  /// Not cleared. Throws std::bad_alloc where there is no memory.
  explicit Buffer(std::size_t bytes)
      : capacity_(align_up(bytes == 0 ? 1 : bytes, kAlignment)),
        memory_(static_cast<std::uint8_t*>(std::aligned_alloc(kAlignment, capacity_))) {
    if (!memory_) {
      throw std::bad_alloc();
    }
  }
  [[nodiscard]] std::uint8_t* data() const { return memory_.get(); }
  [[nodiscard]] std::size_t capacity() const { return memory_ ? capacity_ : 0; }

 private:
  struct Free {
    void operator()(std::uint8_t* memory) const { std::free(memory); }
  };
  std::size_t capacity_ = 0;
  std::unique_ptr<std::uint8_t, Free> memory_;
};

class BufferPool {
 public:
  /// At least `bytes`.
  [[nodiscard]] Buffer take(std::size_t bytes) {
    for (auto& free : free_) {
      if (free.capacity() >= bytes && free.capacity() / kWaste <= bytes) {
        std::swap(free, free_.back());
        auto buffer = std::move(free_.back());
        free_.pop_back();
        kept_ -= buffer.capacity();
        return buffer;
      }
    }
    return Buffer(bytes);
  }
  void give_back(Buffer buffer) {
    if (buffer.capacity() != 0 && kept_ + buffer.capacity() <= kMaxKept) {
      kept_ += buffer.capacity();
      free_.push_back(std::move(buffer));
    }
  }

 private:
  static constexpr std::size_t kMaxKept = 16UL * 1024 * 1024;
  static constexpr std::size_t kWaste = 8;  ///< how many times larger than asked a buffer may be
  std::vector<Buffer> free_;
  std::size_t kept_ = 0;
};

}  // namespace whistler::nbd
