// The log of a VHDX image: what a writer had promised but not yet carried out.
// Format: MS-VHDX 2.3.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "block/block_device.hpp"

namespace whistler::formats {

using VhdxGuid = std::array<std::uint8_t, 16>;

inline constexpr std::uint64_t kVhdxSector = 4096;

/// CRC-32C (Castagnoli), as all checksums of this format; `seed` continues an earlier one.
[[nodiscard]] std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t seed = 0);

/// Changes of a file by whole sectors, later ones over earlier ones.
class VhdxChanges {
 public:
  using Sector = std::array<std::uint8_t, kVhdxSector>;

  void put(std::uint64_t offset, const Sector& content) { sectors_[offset] = content; }
  void put_zeroes(std::uint64_t offset, std::uint64_t bytes);
  /// What the file must be long enough for.
  void set_end(std::uint64_t end) { end_ = end; }
  [[nodiscard]] std::uint64_t end() const { return end_; }
  /// Puts the changes over `bytes` bytes, which are the file's from `offset` on.
  void apply(std::uint64_t offset, std::span<std::uint8_t> bytes) const;
  /// Carries them out.
  [[nodiscard]] Task<Result<void>> write_to(BlockDevice& file) const;

 private:
  std::map<std::uint64_t, Sector> sectors_;
  std::map<std::uint64_t, std::uint64_t>
      zeroes_;  ///< begin -> end, apart from each other; sectors_ lie over them
  std::uint64_t end_ = 0;
};

/// Reads the log and gives what its newest valid sequence of entries changes. kCorrupt if there is none.
[[nodiscard]] Task<Result<VhdxChanges>> read_vhdx_log(BlockDevice& file, std::uint64_t offset,
                                                      std::uint64_t bytes, VhdxGuid guid);

/// The file as it is after the changes, for readers; the file itself stays as it is.
[[nodiscard]] std::unique_ptr<BlockDevice> overlay_changes(std::unique_ptr<BlockDevice> file,
                                                           VhdxChanges changes);

}  // namespace whistler::formats
