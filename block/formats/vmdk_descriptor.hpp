// The text that describes a VMDK image: its kind, its extents, its parent.
// Format: VMware's Virtual Disk Format 5.0, "The Descriptor File".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace whistler::formats {

enum class VmdkExtentType : std::uint8_t {
  kFlat,        ///< FLAT and VMFS: the content as it is
  kSparse,      ///< grains with a header of its own
  kVmfsSparse,  ///< the older sparse kind of ESX
  kZero,        ///< reads as zeroes, no file
};

struct VmdkExtentLine {
  std::uint64_t sectors = 0;
  VmdkExtentType type = VmdkExtentType::kFlat;
  std::string type_name = {};
  std::string file = {};
  std::uint64_t offset_sectors = 0;
};

inline constexpr std::uint32_t kVmdkNoParent = 0xffffffff;

struct VmdkDescriptor {
  std::uint32_t cid = 0;
  std::uint32_t parent_cid = kVmdkNoParent;
  std::string create_type = {};
  std::optional<std::string> parent_name = {};
  std::vector<VmdkExtentLine> extents = {};
};

inline constexpr std::size_t kVmdkMaxDescriptorBytes = 1 << 20;

/// Messages have no file name.
[[nodiscard]] Result<VmdkDescriptor> parse_vmdk_descriptor(std::string_view text);
/// Whether a file that begins so is a descriptor of its own.
[[nodiscard]] bool is_vmdk_descriptor(std::string_view start);

}  // namespace whistler::formats
