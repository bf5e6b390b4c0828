#include "block/jobs/layers.hpp"

#include <sys/stat.h>

#include <filesystem>

#include "block/nbd/address.hpp"
#include "block/qcow2/image.hpp"

namespace whistler {

std::string absolute_name(const std::string& file) {
  return nbd::is_target(file) ? file : std::filesystem::absolute(file).lexically_normal().string();
}

std::vector<Layer> layers_of(BlockDevice& top, const std::string& format) {
  std::vector<Layer> layers = {{&top, absolute_name(top.name()), format}};
  for (auto* device = top.backing(); device != nullptr; device = device->backing()) {
    const auto* above = dynamic_cast<qcow2::Image*>(layers.back().device);
    const auto stored = above != nullptr ? above->header().backing_format() : layers.back().format;
    layers.push_back({device, absolute_name(device->name()), stored.value_or("")});
  }
  return layers;
}

std::uint64_t host_bytes_of(const std::string& file) {
  constexpr std::uint64_t kUnit = 512;  // of st_blocks
  struct stat info{};
  return ::stat(file.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_blocks) * kUnit : 0;
}

bool is_called(const Layer& layer, const std::string& name) {
  std::error_code error;
  return layer.file == absolute_name(name) || std::filesystem::equivalent(layer.file, name, error);
}

}  // namespace whistler
