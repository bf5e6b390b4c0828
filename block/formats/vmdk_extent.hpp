// One sparse extent of a VMDK image: a file with a grain directory, grain tables and grains.
// Format: VMware's Virtual Disk Format 5.0, "Hosted Sparse Extents", "Stream-Optimized Compressed Sparse
// Extents" and "ESX Server Sparse Extents".
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/block_device.hpp"
#include "block/formats/image.hpp"
#include "block/formats/table.hpp"

namespace whistler::formats {

class VmdkSparseExtent {
 public:
  /// What the header says, still to be judged.
  struct Header {
    std::uint32_t version = 1;
    std::uint32_t flags = 0;
    std::uint64_t capacity = 0;  ///< all counts are in sectors
    std::uint64_t grain = 0;
    std::uint64_t descriptor_offset = 0;
    std::uint64_t descriptor_size = 0;
    std::uint32_t entries_per_table = 0;
    std::uint64_t directory_offset = 0;
    std::uint64_t overhead = 0;
    std::uint16_t compression = 0;
  };

  /// Reads the header of a hosted sparse extent ("KDMV") or an ESX one ("COWD"), without judging it; nothing
  /// if the file begins with neither.
  [[nodiscard]] static Task<Result<std::optional<Header>>> read_header(BlockDevice& file);
  /// `file` must outlive the extent.
  [[nodiscard]] static Task<Result<std::unique_ptr<VmdkSparseExtent>>> open(BlockDevice& file, Header header);

  [[nodiscard]] std::uint64_t bytes() const { return header_.capacity * 512; }
  [[nodiscard]] std::uint64_t grain_bytes() const { return header_.grain * 512; }
  [[nodiscard]] bool compressed() const { return compressed_; }
  /// As Image::locate(), in the extent.
  [[nodiscard]] Task<Result<Place>> locate(std::uint64_t offset, std::uint64_t bytes);
  /// Reads a part of the grain that lies compressed at `host_offset`.
  [[nodiscard]] Task<Result<void>> read_compressed(std::uint64_t offset, std::uint64_t host_offset, IoVec to);

 private:
  struct Grain {
    std::uint64_t host_offset = 0;
    std::vector<std::uint8_t> content;
  };

  VmdkSparseExtent(BlockDevice& file, const Header& header)
      : file_(file),
        header_(header),
        words_(file, {.what = "vmdk grain directory or table", .entries = file.size() / 4}) {}
  [[nodiscard]] std::unexpected<Error> corrupt(std::string_view what) const;
  [[nodiscard]] Result<void> judge() const;
  [[nodiscard]] Task<Result<void>> read_footer();
  [[nodiscard]] Task<Result<std::uint64_t>> grain_entry(std::uint64_t grain);
  [[nodiscard]] Task<Result<std::shared_ptr<const Grain>>> inflate(std::uint64_t offset,
                                                                   std::uint64_t host_offset);

  BlockDevice& file_;
  Header header_;
  bool compressed_ = false;
  Table words_;  ///< the whole file as 32-bit words: tables may be anywhere
  std::shared_ptr<const Grain> last_;
};

}  // namespace whistler::formats
