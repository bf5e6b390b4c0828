// Hyper-V disk images (.vhdx), dynamic and fixed: read, with the log replayed.
// Format: MS-VHDX, Virtual Hard Disk v2.
// Missing: writing; differencing images, which are refused.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "block/formats/image.hpp"
#include "block/formats/table.hpp"
#include "block/formats/vhdx_log.hpp"

namespace whistler::formats {

/// What to do with a log that must be replayed when the file is open read-only. On a writable file it is
/// carried out.
enum class VhdxDirtyLog : std::uint8_t {
  kRefuse,
  kInMemory,  ///< read as if it had been carried out
};

class VhdxImage final : public Image {
 public:
  /// Takes the file.
  [[nodiscard]] static Task<Result<std::unique_ptr<VhdxImage>>> open(
      std::unique_ptr<BlockDevice> file, VhdxDirtyLog log = VhdxDirtyLog::kInMemory);

  [[nodiscard]] std::string format() const override { return "vhdx"; }
  [[nodiscard]] std::uint64_t cluster_size() const override { return block_bytes_; }
  [[nodiscard]] bool tells_places() const override { return false; }
  /// Whether opening it has carried out a log.
  [[nodiscard]] bool log_replayed() const { return log_replayed_; }
  [[nodiscard]] std::uint32_t logical_sector_size() const { return sector_bytes_; }
  [[nodiscard]] Task<Result<Place>> locate(std::uint64_t offset, std::uint64_t bytes) override;

 private:
  struct Region {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };
  struct ActiveHeader {
    std::uint64_t sequence = 0;
    bool second = false;  ///< at 128 KiB, not at 64
    VhdxGuid log_guid{};
    std::uint32_t log_bytes = 0;
    std::uint64_t log_offset = 0;
  };

  explicit VhdxImage(std::unique_ptr<BlockDevice> file) : Image(std::move(file)) {}
  [[nodiscard]] Task<Result<void>> open_all(VhdxDirtyLog log);
  [[nodiscard]] Task<Result<ActiveHeader>> read_headers();
  [[nodiscard]] Task<Result<void>> replay(ActiveHeader header, VhdxDirtyLog log);
  [[nodiscard]] Task<Result<void>> clear_log(ActiveHeader header);
  [[nodiscard]] Task<Result<void>> read_regions();
  [[nodiscard]] Task<Result<void>> read_region_table(std::uint64_t at);
  [[nodiscard]] Task<Result<void>> read_metadata();
  [[nodiscard]] Task<Result<void>> read_item(VhdxGuid id, std::uint64_t offset, std::uint32_t bytes,
                                             std::uint32_t flags);
  [[nodiscard]] Result<void> judge();

  Region table_region_;
  Region metadata_region_;
  std::uint64_t block_bytes_ = 0;
  std::uint32_t parameters_ = 0;  ///< flags of the item "file parameters"
  std::uint32_t sector_bytes_ = 0;
  std::uint64_t chunk_blocks_ = 0;  ///< payload blocks between two bitmap entries of the table
  std::optional<Table> table_;
  bool log_replayed_ = false;
};

/// Whether a file with this beginning is a VHDX image.
[[nodiscard]] bool is_vhdx(std::span<const std::uint8_t> start);

}  // namespace whistler::formats
