// The "compress" filter: all that is written to a qcow2 image is compressed.
#pragma once

#include <memory>

#include "block/filter.hpp"
#include "block/qcow2/image.hpp"
#include "block/range_lock.hpp"

namespace whistler {

/// Stacked on an image. Clusters are written whole: what a write leaves out of one is read and packed with
/// it.
class CompressOnWrite final : public Filter {
 public:
  /// `image` is what `device` is.
  CompressOnWrite(std::unique_ptr<BlockDevice> device, qcow2::Image& image)
      : Filter(std::move(device)), image_(image) {}

  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;

 private:
  /// Writes [begin, end) of the request, which lies in one cluster.
  [[nodiscard]] Task<Result<void>> write_cluster(std::uint64_t begin, std::uint64_t end, IoVec part);
  [[nodiscard]] std::uint64_t cluster_size() const { return image_.header().geometry().cluster_size(); }

  qcow2::Image& image_;
  RangeLock clusters_;
};

}  // namespace whistler
