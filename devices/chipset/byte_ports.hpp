// A few registers of one byte each, seen through accesses of any width: each byte goes to its own register,
// low address first.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "devices/core/io_handler.hpp"

namespace whistler {

/// For chips that answer at several ranges: each range is one such member, bound to the chip's functions.
class BytePorts final : public IoHandler {
 public:
  using Read = std::function<std::uint8_t(unsigned offset)>;
  using Write = std::function<void(unsigned offset, std::uint8_t value)>;

  BytePorts(Read read, Write write) : read_(std::move(read)), write_(std::move(write)) {}
  BytePorts(const BytePorts&) = delete;
  BytePorts& operator=(const BytePorts&) = delete;

  [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < width; ++i) {
      value |= std::uint64_t{read_(static_cast<unsigned>(offset) + i)} << (8 * i);
    }
    return value;
  }
  void write(std::uint64_t offset, unsigned width, std::uint64_t value) override {
    for (unsigned i = 0; i < width; ++i) {
      write_(static_cast<unsigned>(offset) + i, static_cast<std::uint8_t>(value >> (8 * i)));
    }
  }

 private:
  Read read_;
  Write write_;
};

}  // namespace whistler
