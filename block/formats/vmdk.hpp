// VMware disk images (.vmdk): read.
// Format: VMware's Virtual Disk Format 5.0. Kinds: monolithicSparse, streamOptimized, monolithicFlat, vmfs,
// vmfsSparse, twoGbMaxExtentSparse and twoGbMaxExtentFlat, with parents. Missing: writing; seSparse; raw
// device mappings.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/formats/image.hpp"
#include "block/formats/vmdk_descriptor.hpp"
#include "block/formats/vmdk_extent.hpp"

namespace whistler::formats {

/// Opens the further files an image names, or refuses.
class SiblingOpener {
 public:
  virtual ~SiblingOpener() = default;
  /// `name` as the image stores it.
  [[nodiscard]] virtual Task<Result<std::unique_ptr<BlockDevice>>> open_sibling(std::string name) = 0;
};

class VmdkImage final : public Image {
 public:
  struct Extent {
    std::uint64_t start = 0;  ///< on the disk
    std::uint64_t bytes = 0;
    std::string type_name = {};             ///< as in the descriptor; "" where there is only one file
    std::unique_ptr<BlockDevice> own = {};  ///< nothing: the image's first file, or zeroes
    std::unique_ptr<VmdkSparseExtent> sparse = {};
    std::uint64_t flat_offset = 0;
    bool zero = false;
  };

  /// Takes the file. `siblings` is used only while opening.
  [[nodiscard]] static Task<Result<std::unique_ptr<VmdkImage>>> open(std::unique_ptr<BlockDevice> file,
                                                                     SiblingOpener& siblings);

  [[nodiscard]] std::string format() const override { return "vmdk"; }
  [[nodiscard]] std::uint64_t cluster_size() const override;
  [[nodiscard]] std::optional<std::string> backing_name() const override { return descriptor_.parent_name; }
  [[nodiscard]] const VmdkDescriptor& descriptor() const { return descriptor_; }
  [[nodiscard]] const std::vector<Extent>& extents() const { return extents_; }
  /// The file an extent lies in.
  [[nodiscard]] const BlockDevice& extent_file(const Extent& extent) const {
    return extent.own ? *extent.own : *file_;
  }
  [[nodiscard]] Task<Result<Place>> locate(std::uint64_t offset, std::uint64_t bytes) override;

 private:
  explicit VmdkImage(std::unique_ptr<BlockDevice> file) : Image(std::move(file)) {}
  [[nodiscard]] Task<Result<void>> open_all(SiblingOpener& siblings);
  [[nodiscard]] Task<Result<std::string>> read_text(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> open_described(SiblingOpener& siblings);
  [[nodiscard]] Task<Result<Extent>> open_extent(SiblingOpener& siblings, const VmdkExtentLine& line);
  [[nodiscard]] Task<Result<void>> read_compressed(std::uint64_t offset, Place place, IoVec to) override;
  [[nodiscard]] Task<Result<void>> close_files() override;
  [[nodiscard]] const Extent& extent_at(std::uint64_t offset) const;

  VmdkDescriptor descriptor_;
  std::vector<Extent> extents_;
};

/// Whether a file with this beginning is a VMDK image or a descriptor of one.
[[nodiscard]] bool is_vmdk(std::span<const std::uint8_t> start);

}  // namespace whistler::formats
