// VirtualBox disk images (.vdi), dynamic and fixed: read, written and made.
// Format: the header as VirtualBox writes it since version 1.1, then a map of 32-bit block numbers, then
// blocks of 1 MiB. Missing: undo and differencing images, whose parent only VirtualBox's registry knows;
// other block sizes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/formats/image.hpp"
#include "block/formats/table.hpp"

namespace whistler::formats {

inline constexpr std::uint64_t kVdiBlockBytes = 1 << 20;
inline constexpr std::uint32_t kVdiMaxBlocks = 0x1fffff80;
inline constexpr std::uint64_t kVdiMaxBytes = std::uint64_t{kVdiMaxBlocks} * kVdiBlockBytes;

struct VdiHeader {
  std::uint32_t image_type = 1;
  std::uint32_t map_offset = 0;
  std::uint32_t data_offset = 0;
  std::uint64_t disk_bytes = 0;
  std::uint32_t blocks = 0;
  std::uint32_t blocks_allocated = 0;
  bool operator==(const VdiHeader&) const = default;
};

struct VdiCheck {
  std::uint64_t errors = 0;  ///< map entries out of range or used twice, a wrong count
  std::uint64_t allocated = 0;
  std::uint64_t end_offset = 0;
  std::vector<std::string> messages;  ///< the first errors, a line each
};

struct VdiCreateOptions {
  std::uint64_t size = 0;
  bool fixed = false;
};

class VdiImage final : public Image {
 public:
  /// Takes the file; a writable one makes a writable image.
  [[nodiscard]] static Task<Result<std::unique_ptr<VdiImage>>> open(std::unique_ptr<BlockDevice> file);

  [[nodiscard]] std::string format() const override { return "vdi"; }
  [[nodiscard]] std::uint64_t cluster_size() const override { return kVdiBlockBytes; }
  [[nodiscard]] const VdiHeader& header() const { return header_; }
  [[nodiscard]] Task<Result<Place>> locate(std::uint64_t offset, std::uint64_t bytes) override;
  /// Reads the whole map.
  [[nodiscard]] Task<Result<VdiCheck>> check();

 private:
  VdiImage(std::unique_ptr<BlockDevice> file, const VdiHeader& header, Table map)
      : Image(std::move(file)), header_(header), map_(std::move(map)) {
    size_ = header.disk_bytes;
  }
  [[nodiscard]] bool can_write() const override { return true; }
  [[nodiscard]] Task<Result<void>> allocate(std::uint64_t offset, IoVec from) override;
  [[nodiscard]] Task<Result<void>> write_header() override;
  [[nodiscard]] Task<Result<void>> find_next_block();
  [[nodiscard]] std::uint64_t block_offset(std::uint64_t number) const {
    return header_.data_offset + number * kVdiBlockBytes;
  }

  VdiHeader header_;
  Table map_;
  /// The first block number no entry uses: the header's count is not trusted for it. Known after the first
  /// search.
  std::uint64_t next_block_ = 0;
  bool next_known_ = false;
  bool header_dirty_ = false;
};

/// Whether a file with this beginning is a VDI image.
[[nodiscard]] bool is_vdi(std::span<const std::uint8_t> start);
/// Makes an image in an empty file. The file shows zeroes where nothing is written.
[[nodiscard]] Task<Result<void>> create_vdi(BlockDevice& file, VdiCreateOptions options);

}  // namespace whistler::formats
