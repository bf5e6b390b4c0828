// Small files that programs of a test leave.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace whistler::plan {

/// All that the file holds; empty if it is not there or cannot be read.
[[nodiscard]] inline std::string file_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace whistler::plan
