// The images a drive's image stands on, from the top down.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "block/block_device.hpp"

namespace whistler {

struct Layer {
  BlockDevice* device = nullptr;
  std::string file = {};    ///< absolute, unless it is no file
  std::string format = {};  ///< empty where nobody says
};

/// `format` is that of `top`; the others' stand in the images above them.
[[nodiscard]] std::vector<Layer> layers_of(BlockDevice& top, const std::string& format);

/// Whether `name`, as a client gives it, means the file of that layer.
[[nodiscard]] bool is_called(const Layer& layer, const std::string& name);

/// What the host has set aside for a file.
[[nodiscard]] std::uint64_t host_bytes_of(const std::string& file);

/// A name as it is stored in images and shown: seen from anywhere.
[[nodiscard]] std::string absolute_name(const std::string& file);

}  // namespace whistler
