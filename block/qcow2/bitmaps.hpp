// The persistent dirty bitmaps of an image: kept up to date while it is written, and changed on request.
//
// Order: before the first write of data the directory on disk says "in use" of every enabled bitmap, durably.
// At the end new data, tables and directory are written into new clusters; the autoclear bit is dropped while
// the header comes to name the new directory, and set again; then the old clusters are free. So a crash
// leaves either good bitmaps, or bitmaps that say they are not, and at worst leaked clusters.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "block/dirty_bits.hpp"
#include "block/qcow2/bitmap_directory.hpp"

namespace whistler::qcow2 {

class Image;

struct BitmapInfo {
  std::string name;
  std::uint64_t granularity = 0;
  bool in_use = false;   ///< inconsistent: can only be removed
  bool enabled = false;  ///< "auto": writes are marked in it
};

/// Owned by the image. Errors are worded as QEMU words them.
class Bitmaps {
 public:
  explicit Bitmaps(Image& image) : image_(image) {}
  Bitmaps(const Bitmaps&) = delete;
  Bitmaps& operator=(const Bitmaps&) = delete;

  /// Reads the directory; without one there are no bitmaps. For writing, this must have succeeded before.
  [[nodiscard]] Task<Result<void>> load();

  /// Whether changes of the disk's content must be noted.
  [[nodiscard]] bool tracking() const { return tracking_; }
  /// The content of that range is about to change.
  [[nodiscard]] Task<Result<void>> note(std::uint64_t offset, std::uint64_t bytes);
  /// The disk is about to have another size, of so many bytes: all bitmaps go along. Refused if one cannot.
  [[nodiscard]] Task<Result<void>> prepare_resize(std::uint64_t disk_bytes);
  void resize(std::uint64_t bytes);
  /// Has the image say that no bitmap is to be relied on, as it does while it is written.
  [[nodiscard]] Task<Result<void>> leave_in_use();
  /// At the end: stores what note() has marked.
  [[nodiscard]] Task<Result<void>> sync();

  [[nodiscard]] Task<Result<std::vector<BitmapInfo>>> list();
  /// `granularity` 0: that of a cluster, between 4 and 64 KiB.
  [[nodiscard]] Task<Result<void>> add(std::string name, std::uint64_t granularity, bool enabled);
  [[nodiscard]] Task<Result<void>> remove(std::string name);
  [[nodiscard]] Task<Result<void>> clear(std::string name);
  [[nodiscard]] Task<Result<void>> enable(std::string name, bool enabled);
  [[nodiscard]] Task<Result<void>> merge(std::string name, const DirtyBits& source);
  /// A copy of its bits as they are now.
  [[nodiscard]] Task<Result<DirtyBits>> content(std::string name);

  /// The granularity that add() chooses.
  [[nodiscard]] std::uint64_t default_granularity() const;

 private:
  struct Entry {
    DiskBitmap disk;                            ///< as on disk, but for "in use" while writes are tracked
    std::vector<std::uint64_t> table = {};      ///< read with the bits
    std::unique_ptr<DirtyBits> bits = nullptr;  ///< when read
    bool changed = false;                       ///< bits differ from what is stored
  };
  struct Run {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
  };

  [[nodiscard]] Task<Result<std::vector<std::uint64_t>>> read_table(const DiskBitmap& disk);
  [[nodiscard]] Task<Result<void>> load_bits(Entry& entry);
  [[nodiscard]] Task<Result<void>> begin_tracking();
  [[nodiscard]] Task<Result<void>> mark_in_use(bool all);
  [[nodiscard]] Result<Entry*> find(const std::string& name, bool usable);
  [[nodiscard]] Task<Result<Entry*>> find_loaded(std::string name);
  [[nodiscard]] Result<void> check_new(const std::string& name, std::uint64_t granularity) const;
  [[nodiscard]] Task<Result<void>> store();
  [[nodiscard]] Task<Result<void>> write_bits(Entry& entry, DiskBitmap& disk,
                                              std::vector<std::uint64_t>& table, std::vector<Run>& taken);
  [[nodiscard]] Task<Result<std::uint64_t>> write_new(std::span<const std::uint8_t> bytes,
                                                      std::vector<Run>& taken);
  [[nodiscard]] Task<Result<void>> switch_directory(std::optional<BitmapExtension> extension);
  void note_old_clusters(const Entry& entry, std::vector<Run>& old) const;
  void update_tracking();

  Image& image_;
  AsyncMutex mutex_;
  std::vector<Entry> entries_;
  std::vector<Run> removed_;  ///< clusters of removed bitmaps, free once store() has succeeded
  bool loaded_ = false;
  bool tracking_ = false;  ///< an enabled bitmap exists
  bool begun_ = false;     ///< the directory on disk says "in use"
};

}  // namespace whistler::qcow2
