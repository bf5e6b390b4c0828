#include "vmm/monitor/screen_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <vector>

#include "base/unique_fd.hpp"
#include "vmm/png_encoder.hpp"

namespace whistler {
namespace {

constexpr std::size_t kChannels = 3;

std::vector<std::uint8_t> rgb_bytes(const Surface& surface) {
  std::vector<std::uint8_t> bytes;
  bytes.reserve(std::size_t{surface.width()} * surface.height() * kChannels);
  for (unsigned y = 0; y < surface.height(); ++y) {
    for (const auto pixel : surface.row(y)) {
      bytes.push_back(static_cast<std::uint8_t>(pixel >> 16));
      bytes.push_back(static_cast<std::uint8_t>(pixel >> 8));
      bytes.push_back(static_cast<std::uint8_t>(pixel));
    }
  }
  return bytes;
}

std::vector<std::uint8_t> ppm(const Surface& surface) {
  const auto head = fmt::format("P6\n{} {}\n255\n", surface.width(), surface.height());
  std::vector<std::uint8_t> bytes(head.begin(), head.end());
  const auto pixels = rgb_bytes(surface);
  bytes.insert(bytes.end(), pixels.begin(), pixels.end());
  return bytes;
}

}  // namespace

Result<void> write_picture(const Surface& surface, const std::string& path, PictureFormat format) {
  auto bytes = format == PictureFormat::kPng
                   ? encode_png(surface.width(), surface.height(), rgb_bytes(surface))
                   : ppm(surface);
  if (!bytes) {
    return std::unexpected(bytes.error());
  }
  // Non-blocking, so that the name of a pipe nobody reads is an error and not the end of the machine.
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666));
  if (file.get() < 0) {
    return fail_errno(errno, fmt::format("failed to open file '{}'", path));
  }
  std::span<const std::uint8_t> left = *bytes;
  while (!left.empty()) {
    const auto written = ::write(file.get(), left.data(), left.size());
    if (written < 0) {
      return fail_errno(errno, fmt::format("failed to write file '{}'", path));
    }
    left = left.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace whistler
