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
  /// `alignment`: a power of two.
  explicit AlignedBuffer(std::size_t bytes, std::size_t alignment = 4096)
      : data_(bytes == 0 ? nullptr
                         : static_cast<std::uint8_t*>(::operator new(bytes, std::align_val_t(alignment))),
              Free{std::align_val_t(alignment)}),
        size_(bytes) {}

  [[nodiscard]] std::uint8_t* data() { return data_.get(); }
  [[nodiscard]] std::span<std::uint8_t> bytes() { return {data_.get(), size_}; }
  [[nodiscard]] iovec vec() { return {data_.get(), size_}; }

 private:
  struct Free {
    std::align_val_t alignment;
    void operator()(std::uint8_t* data) const { ::operator delete(data, alignment); }
  };
  std::unique_ptr<std::uint8_t, Free> data_;
  std::size_t size_;
};

}  // namespace whistler
