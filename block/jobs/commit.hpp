// commit: what layers hold goes into one they stand on, and they are taken out of the chain.
//
// The base is written only where a layer above it holds the content, so that the chain shows the same at any
// moment, also after a crash. The image above is told of its new backing file when all of it is durable.
#pragma once

#include <optional>
#include <string>

#include "block/drive_image.hpp"
#include "block/jobs/copy.hpp"
#include "block/qcow2/image.hpp"

namespace whistler {

/// Lets a layer be written to, and makes it as large as the disk it is to hold.
[[nodiscard]] Task<Result<void>> open_for_commit(BlockDevice& base, std::uint64_t size);
/// The opposite, where it can be done; what goes wrong is logged.
[[nodiscard]] Task<void> close_for_commit(BlockDevice& base);

/// Of layers below the top one, which the guest does not write to.
class Commit final : public JobWork, private DiskWalk {
 public:
  /// From `top` downwards the layers go into `base`; `overlay` is the image that stands on `top`. `name` and
  /// `format` are what it stores of `base`.
  struct Place {
    qcow2::Image* overlay = nullptr;
    BlockDevice* top = nullptr;
    BlockDevice* base = nullptr;
    std::optional<std::string> name = {};
    std::optional<std::string> format = {};
  };
  Commit(DriveImage& drive, Place place) : drive_(drive), place_(std::move(place)) {}

  [[nodiscard]] std::string_view type() const override { return "commit"; }
  [[nodiscard]] Task<Result<void>> run(BlockJob& job) override;
  [[nodiscard]] Task<Result<void>> conclude() override;
  [[nodiscard]] Task<void> clean_up() override;

 private:
  [[nodiscard]] Task<Copied> step(std::uint64_t at, std::uint64_t& bytes, const CopyBuffer& buffer) override;

  DriveImage& drive_;
  Place place_;
};

}  // namespace whistler
