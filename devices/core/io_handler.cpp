#include "devices/core/io_handler.hpp"

#include "base/bytes.hpp"

namespace whistler {

void IoHandler::read_many(std::uint64_t offset, unsigned width, std::span<std::uint8_t> data) {
  for (; data.size() >= width; data = data.subspan(width)) {
    store_little(data.data(), width, read(offset, width));
  }
}

void IoHandler::write_many(std::uint64_t offset, unsigned width, std::span<const std::uint8_t> data) {
  for (; data.size() >= width; data = data.subspan(width)) {
    write(offset, width, load_little(data.data(), width));
  }
}

}  // namespace whistler
