// What the foreign formats share: a disk whose content lies in pieces of one or more files, found through
// tables.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "block/block_device.hpp"
#include "block/range_lock.hpp"

namespace whistler::formats {

enum class PlaceKind : std::uint8_t {
  kHole,  ///< not in this layer: the backing's content, or zeroes; only in formats that can have a backing
  kZero,  ///< reads as zeroes
  kData,
  kCompressed,
};

/// So many table entries one answer of locate() looks at: longer ranges are told in parts.
inline constexpr std::uint64_t kMaxEntriesAnAnswer = 1 << 17;

/// Where a range of the disk is.
struct Place {
  PlaceKind kind = PlaceKind::kHole;
  std::uint64_t bytes = 0;        ///< how far this answer holds
  BlockDevice* file = nullptr;    ///< for kData and kCompressed
  std::uint64_t host_offset = 0;  ///< in `file`
  bool plain = false;             ///< the file's own holes are holes of the disk, as in a fixed image
};

/// A format's image on its file. A format gives locate(), and if it can be written, allocate().
class Image : public BlockDevice {
 public:
  /// QEMU's name of the format.
  [[nodiscard]] virtual std::string format() const = 0;
  /// The unit of allocation, or 0 if there is none.
  [[nodiscard]] virtual std::uint64_t cluster_size() const { return 0; }
  /// Whether people are told where its content lies and where it has none; QEMU does not for every format.
  [[nodiscard]] virtual bool tells_places() const { return true; }
  /// The longest range from `offset` on, up to `bytes`, with one answer. Within the disk; `bytes` is not 0.
  [[nodiscard]] virtual Task<Result<Place>> locate(std::uint64_t offset, std::uint64_t bytes) = 0;
  /// The name the image gives to what lies behind it, as stored.
  [[nodiscard]] virtual std::optional<std::string> backing_name() const { return std::nullopt; }
  /// What holes show. Its format is the same as this one's.
  void set_backing(std::unique_ptr<BlockDevice> backing) { backing_ = std::move(backing); }

  [[nodiscard]] BlockDevice* backing() override { return backing_.get(); }

  [[nodiscard]] std::uint64_t size() const override { return size_; }
  [[nodiscard]] bool read_only() const override { return !can_write() || file_->read_only(); }
  [[nodiscard]] std::string name() const override { return file_->name(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> close() override;

 protected:
  explicit Image(std::unique_ptr<BlockDevice> file) : file_(std::move(file)) {}
  [[nodiscard]] virtual bool can_write() const { return false; }
  /// Gives `bytes` of a hole at `offset`, all in one block, a place with `from` as content. Called with the
  /// allocation lock held.
  [[nodiscard]] virtual Task<Result<void>> allocate(std::uint64_t offset, IoVec from);
  /// Called before `offset`, which has a place, is written to.
  [[nodiscard]] virtual Task<Result<void>> before_write(std::uint64_t offset);
  /// Fills `to` from a compressed place.
  [[nodiscard]] virtual Task<Result<void>> read_compressed(std::uint64_t offset, Place place, IoVec to);
  /// Writes what is kept in memory about the tables, before a flush.
  [[nodiscard]] virtual Task<Result<void>> write_header();
  [[nodiscard]] virtual Task<Result<void>> close_files();

  [[nodiscard]] std::unexpected<Error> error(ErrorCode code, std::string_view what) const;
  [[nodiscard]] std::unexpected<Error> corrupt(std::string_view what) const {
    return error(ErrorCode::kCorrupt, what);
  }

  std::unique_ptr<BlockDevice> file_;
  std::unique_ptr<BlockDevice> backing_;
  std::uint64_t size_ = 0;
  RangeLock allocation_;  ///< of all; held exclusively by who changes tables

 private:
  [[nodiscard]] Task<Result<void>> read_place(std::uint64_t offset, Place place, IoVec to);
  [[nodiscard]] Task<Result<std::uint64_t>> write_piece(std::uint64_t offset, IoVec from, std::uint64_t done);
};

/// Reads `bytes` bytes of `file` at `offset`; what lies beyond its end is an error naming `what`.
[[nodiscard]] Task<Result<void>> read_structure(BlockDevice& file, std::string what, std::uint64_t offset,
                                                void* to, std::size_t bytes);
[[nodiscard]] Task<Result<void>> write_bytes(BlockDevice& file, std::uint64_t offset, const void* from,
                                             std::size_t bytes);

}  // namespace whistler::formats
