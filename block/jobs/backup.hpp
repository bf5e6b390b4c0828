// backup: a copy of a drive as it is when the job starts, made while the guest goes on writing.
//
// What the guest is about to change is copied before ("copy before write"). Where that fails, the job's
// policy decides. If it reports, the job fails and the guest's request goes on; if it ignores or stops, the
// request waits until the copy is made or the job has ended. The guest's request never fails for it.
#pragma once

#include <memory>
#include <optional>

#include "base/async.hpp"
#include "block/dirty_bitmap.hpp"
#include "block/dirty_bits.hpp"
#include "block/drive_image.hpp"
#include "block/jobs/copy.hpp"
#include "block/range_lock.hpp"

namespace whistler {

enum class CopySync : std::uint8_t {
  kFull,  ///< everything
  kTop,   ///< what the top layer holds; the target stands on the same backing file
  kNone,  ///< only what changes from now on: the target stands on the drive's own image
};

/// A dirty bitmap that a backup uses.
struct BackupBitmap {
  enum class Mode : std::uint8_t {
    kOnSuccess,  ///< cleared of what was marked before, if the job succeeds
    kNever,      ///< left as it is
    kAlways,     ///< cleared of what was copied, also if the job fails
  };
  std::shared_ptr<DirtyBitmap> bitmap = {};  ///< null: none
  Mode mode = Mode::kOnSuccess;
  bool selects = false;  ///< only what is marked is copied
};

class Backup final : public JobWork, private ChangeWatcher {
 public:
  /// `target` is at least as large as the drive, and opened without its backing file. It is filled in pieces
  /// of `cluster` bytes at least.
  Backup(DriveImage& drive, std::unique_ptr<BlockDevice> target, CopySync sync, std::uint64_t cluster,
         BackupBitmap bitmap = {});

  [[nodiscard]] std::string_view type() const override { return "backup"; }
  /// While the drive is held: this is the moment that the copy shows.
  void begin(BlockJob& job) override;
  [[nodiscard]] Task<Result<void>> run(BlockJob& job) override;
  [[nodiscard]] Task<Result<void>> conclude() override;
  [[nodiscard]] Task<void> clean_up() override;

 private:
  struct Trouble {
    Error error;
    bool write;
  };

  /// Takes as copied what the bitmap does not mark.
  void select();
  /// What is marked in the bitmap once the job has ended.
  [[nodiscard]] DirtyBits left_dirty(bool well) const;
  [[nodiscard]] Task<void> before_change(std::uint64_t offset, std::uint64_t bytes) override;
  /// Copies what is not copied yet of whole pieces.
  [[nodiscard]] Task<Copied> copy(std::uint64_t begin, std::uint64_t end, const CopyBuffer& buffer);
  /// Asks the job's policy, and lets those go on who wait for that.
  [[nodiscard]] Task<Result<void>> ask(BlockJob& job, Trouble trouble);

  DriveImage& drive_;
  std::unique_ptr<BlockDevice> target_;
  CopySync sync_;
  BackupBitmap bitmap_;
  DirtyBits copied_;
  std::optional<DirtyBits> selected_;  ///< what is to be copied; nothing: everything
  RangeLock pieces_;
  BlockJob* job_ = nullptr;
  std::optional<Trouble> trouble_;  ///< of a request of the guest, for run() to see to
  WaitQueue settled_;               ///< requests of the guest that wait for that
  bool given_up_ = false;
};

}  // namespace whistler
