// stream: a drive's image takes in what it stands on, until it needs it no longer.
//
// Where its errors are ignored, it takes in what it can and fails in the end.
//
// A crash in the middle leaves an image that holds more than before and still names its old backing file; the
// name is changed when everything is durable.
#pragma once

#include <optional>
#include <string>

#include "block/drive_image.hpp"
#include "block/jobs/copy.hpp"
#include "block/qcow2/image.hpp"

namespace whistler {

class Stream final : public JobWork, private ChangeWatcher, private DiskWalk {
 public:
  /// What the image stands on afterwards. It is one of the layers below, or nothing.
  struct Base {
    BlockDevice* device = nullptr;
    std::optional<std::string> name = {};  ///< as the image is to store it
    std::optional<std::string> format = {};
  };
  /// `top` is what `drive` shows.
  Stream(DriveImage& drive, qcow2::Image& top, Base base)
      : drive_(drive), top_(top), base_(std::move(base)) {}

  [[nodiscard]] std::string_view type() const override { return "stream"; }
  [[nodiscard]] Task<Result<void>> run(BlockJob& job) override;
  [[nodiscard]] Task<Result<void>> conclude() override;
  [[nodiscard]] Task<void> clean_up() override;

 private:
  [[nodiscard]] Task<Copied> step(std::uint64_t at, std::uint64_t& bytes, const CopyBuffer& buffer) override;

  DriveImage& drive_;
  qcow2::Image& top_;
  Base base_;
};

}  // namespace whistler
