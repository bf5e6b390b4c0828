#include "vmm/plan/picture.hpp"

#include <fmt/format.h>
#include <png.h>

#include <cstdlib>

namespace whistler::plan {
namespace {

constexpr std::uint64_t kMostPixels = std::uint64_t{64} << 20;
constexpr std::uint8_t kHalf = 128;

bool near(const Picture::Pixel& a, const Picture::Pixel& b, unsigned tolerance) {
  for (std::size_t channel = 0; channel < 3; ++channel) {
    if (std::abs(a[channel] - b[channel]) > static_cast<int>(tolerance)) {
      return false;
    }
  }
  return true;
}

}  // namespace

Result<Picture> read_png(const std::string& path) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  if (png_image_begin_read_from_file(&image, path.c_str()) == 0) {
    return fail(ErrorCode::kNotFound, fmt::format("{}: cannot be read as PNG: {}", path, image.message));
  }
  image.format = PNG_FORMAT_RGBA;
  Picture picture{.width = image.width, .height = image.height, .pixels = {}};
  const auto count = std::uint64_t{image.width} * image.height;
  if (count == 0 || count > kMostPixels) {
    png_image_free(&image);
    return fail(ErrorCode::kInvalid, fmt::format("{}: has {} pixels", path, count));
  }
  picture.pixels.resize(count);
  if (png_image_finish_read(&image, nullptr, picture.pixels.data(), 0, nullptr) == 0) {
    return fail(ErrorCode::kCorrupt, fmt::format("{}: cannot be read as PNG: {}", path, image.message));
  }
  return picture;
}

std::size_t different_pixels(const Picture& a, const Picture& b) {
  if (a.width != b.width || a.height != b.height) {
    return std::max(a.pixels.size(), b.pixels.size());
  }
  std::size_t count = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) {
    count += a.pixels[i] == b.pixels[i] ? 0U : 1U;
  }
  return count;
}

double share_different(const Picture& whole, const Picture& part, const Picture* mask,
                       const Comparison& how) {
  constexpr double kAll = 100;
  if (how.x + std::uint64_t{part.width} > whole.width || how.y + std::uint64_t{part.height} > whole.height) {
    return kAll;
  }
  std::size_t counted = 0;
  std::size_t different = 0;
  for (unsigned y = 0; y < part.height; ++y) {
    for (unsigned x = 0; x < part.width; ++x) {
      const auto& wanted = part.at(x, y);
      if (wanted[3] < kHalf || (mask != nullptr && mask->at(x, y)[0] < kHalf)) {
        continue;
      }
      ++counted;
      different += near(wanted, whole.at(how.x + x, how.y + y), how.tolerance) ? 0U : 1U;
    }
  }
  return counted == 0 ? kAll : kAll * static_cast<double>(different) / static_cast<double>(counted);
}

}  // namespace whistler::plan
