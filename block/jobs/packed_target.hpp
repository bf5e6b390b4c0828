// The target of a backup whose clusters are stored compressed.
#pragma once

#include <memory>

#include "base/stop.hpp"
#include "block/filter.hpp"
#include "block/qcow2/image.hpp"
#include "block/uring/ring.hpp"

namespace whistler {

/// Whether an image can hold compressed clusters at all.
[[nodiscard]] bool can_be_packed(const qcow2::Image* image);

/// Compresses on threads, so that nobody waits for it but the job.
class PackedTarget final : public Filter {
 public:
  /// `image`, for which can_be_packed(), is what `target` leads to.
  PackedTarget(Ring& ring, std::unique_ptr<BlockDevice> target, qcow2::Image& image)
      : Filter(std::move(target)), ring_(ring), image_(image) {}

  /// Whole clusters, of which the disk's last may be shorter.
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags) override;

 private:
  [[nodiscard]] Task<Result<void>> write_cluster(std::uint64_t offset, IoVec from);

  Ring& ring_;
  qcow2::Image& image_;
  Stop never_;  // it is not asked for; its being there sends the work to a thread
};

}  // namespace whistler
