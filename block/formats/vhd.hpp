// Virtual PC disk images (.vhd; "vpc" to QEMU's tools), dynamic and fixed: read, written and made.
// Format: Microsoft's Virtual Hard Disk Image Format Specification.
// Missing: differencing images, which are refused.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "block/formats/image.hpp"
#include "block/formats/table.hpp"

namespace whistler::formats {

/// Which of the two sizes a footer gives is the disk's.
enum class VhdSize : std::uint8_t {
  kByCreator,  ///< the one that the program named in the footer means
  kGeometry,   ///< cylinders * heads * sectors
  kCurrent,    ///< the field "current size"
};

struct VhdGeometry {
  std::uint16_t cylinders = 0;
  std::uint8_t heads = 0;
  std::uint8_t sectors = 0;
  [[nodiscard]] std::uint64_t total() const { return std::uint64_t{cylinders} * heads * sectors; }
  bool operator==(const VhdGeometry&) const = default;
};

/// The geometry of a disk of `sectors` sectors as the specification computes it; it may have fewer sectors.
[[nodiscard]] VhdGeometry vhd_geometry(std::uint64_t sectors);

struct VhdCreateOptions {
  std::uint64_t size = 0;
  bool fixed = false;
  /// Exactly that size, which old programs that go by the geometry do not see; else it is rounded up to one
  /// that a geometry can express.
  bool force_size = false;
};

class VhdImage final : public Image {
 public:
  static constexpr std::size_t kFooterBytes = 512;

  /// Takes the file; a writable one makes a writable image.
  [[nodiscard]] static Task<Result<std::unique_ptr<VhdImage>>> open(std::unique_ptr<BlockDevice> file,
                                                                    VhdSize size = VhdSize::kByCreator);

  [[nodiscard]] std::string format() const override { return "vpc"; }
  [[nodiscard]] std::uint64_t cluster_size() const override { return fixed() ? 0 : block_bytes_; }
  [[nodiscard]] bool fixed() const { return !table_; }
  [[nodiscard]] Task<Result<Place>> locate(std::uint64_t offset, std::uint64_t bytes) override;

 private:
  explicit VhdImage(std::unique_ptr<BlockDevice> file) : Image(std::move(file)) {}
  [[nodiscard]] bool can_write() const override { return true; }
  [[nodiscard]] Task<Result<void>> open_footer(VhdSize size);
  [[nodiscard]] Task<Result<void>> open_dynamic(std::uint64_t header_offset);
  [[nodiscard]] Task<Result<void>> allocate(std::uint64_t offset, IoVec from) override;
  [[nodiscard]] Task<Result<void>> before_write(std::uint64_t offset) override;

  std::uint8_t footer_[kFooterBytes] = {};
  std::uint64_t block_bytes_ = 0;
  std::uint64_t bitmap_bytes_ = 0;
  std::optional<Table> table_;
  std::uint64_t free_offset_ = 0;  ///< where the next block goes; the footer is there now
  /// The block whose bitmap was last seen to be full.
  std::optional<std::uint64_t> full_block_;
};

/// Whether a file with this beginning is a dynamic image; a fixed one has nothing at its beginning.
[[nodiscard]] bool is_vhd(std::span<const std::uint8_t> start);
/// Makes an image in an empty file.
[[nodiscard]] Task<Result<void>> create_vhd(BlockDevice& file, VhdCreateOptions options);

}  // namespace whistler::formats
