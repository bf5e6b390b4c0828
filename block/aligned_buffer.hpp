// Memory for what goes to a file or comes from it: uninitialised, and fit for O_DIRECT.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <new>
#include <span>

namespace whistler {

class AlignedBuffer {
 public:
  explicit AlignedBuffer(std::size_t bytes)
      : data_(static_cast<std::uint8_t*>(::operator new(bytes, kAlignment))), size_(bytes) {}

  [[nodiscard]] std::uint8_t* data() { return data_.get(); }
  [[nodiscard]] std::span<std::uint8_t> bytes() { return {data_.get(), size_}; }
  [[nodiscard]] iovec vec() { return {data_.get(), size_}; }

 private:
  static constexpr std::align_val_t kAlignment{4096};
  struct Free {
    void operator()(std::uint8_t* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<std::uint8_t, Free> data_;
  std::size_t size_;
};

}  // namespace whistler
