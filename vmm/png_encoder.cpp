#include "vmm/png_encoder.hpp"

#include <fmt/format.h>
#include <png.h>

namespace whistler {

Result<std::vector<std::uint8_t>> encode_png(unsigned width, unsigned height,
                                             std::span<const std::uint8_t> rgb) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = PNG_FORMAT_RGB;
  // Asked without room it tells how much it needs.
  png_alloc_size_t size = 0;
  bool made = png_image_write_to_memory(&image, nullptr, &size, 0, rgb.data(), 0, nullptr) != 0;
  std::vector<std::uint8_t> bytes(size);
  made = made && png_image_write_to_memory(&image, bytes.data(), &size, 0, rgb.data(), 0, nullptr) != 0;
  if (!made) {
    return fail(ErrorCode::kInvalid, fmt::format("the picture cannot be compressed: {}", image.message));
  }
  bytes.resize(size);
  return bytes;
}

}  // namespace whistler
