// mirror: a second image is kept the same as the drive's, and takes its place when somebody says so. Into one
// of the layers the drive's image stands on, this is the commit of the active layer.
//
// Until then the old image is the one that counts. A commit empties the old image before the guest writes to
// the base: whichever of the two somebody opens after a crash, it shows the same.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "block/dirty_bits.hpp"
#include "block/drive_image.hpp"
#include "block/jobs/backup.hpp"
#include "block/qcow2/image.hpp"

namespace whistler {

class Mirror final : public JobWork, private ChangeWatcher {
 public:
  struct Settings {
    CopySync sync = CopySync::kFull;
    std::uint64_t cluster = 0;           ///< of the target
    std::function<void()> pivoted = {};  ///< the drive shows the target from now on
  };
  /// `target` as for Backup.
  Mirror(DriveImage& drive, std::unique_ptr<BlockDevice> target, Settings settings);
  /// Commits `top`, which the drive shows, into `base`. `name` and `format` are what is stored of the base.
  struct Base {
    BlockDevice* device = nullptr;
    std::string name = {}, format = {};
  };
  Mirror(DriveImage& drive, qcow2::Image& top, Base base, Settings settings);

  [[nodiscard]] std::string_view type() const override {
    return base_.device != nullptr ? "commit" : "mirror";
  }
  [[nodiscard]] Task<Result<void>> run(BlockJob& job) override;
  [[nodiscard]] Task<Result<void>> conclude() override;
  [[nodiscard]] Task<void> clean_up() override;
  [[nodiscard]] bool becomes_ready() const override { return true; }

 private:
  void after_change(std::uint64_t offset, std::uint64_t bytes) override;
  /// Copies one dirty stretch of at most `most` bytes; `bytes` is 0 if nothing is dirty.
  [[nodiscard]] Task<Copied> copy_some(std::uint64_t most, std::uint64_t& bytes, const CopyBuffer& buffer);
  [[nodiscard]] BlockDevice& target() const { return target_ != nullptr ? *target_ : *base_.device; }
  [[nodiscard]] Task<Result<void>> pivot();
  [[nodiscard]] Task<Result<void>> pivot_to_base();
  [[nodiscard]] Task<Result<void>> pivot_to_target();

  DriveImage& drive_;
  qcow2::Image* top_ = nullptr;  // of a commit
  std::unique_ptr<BlockDevice> target_;
  Base base_;
  Settings settings_;
  DirtyBits dirty_;
  std::uint64_t cursor_ = 0;
  BlockJob* job_ = nullptr;
  bool effective_ = true;
  bool pivoted_ = false;
};

}  // namespace whistler
