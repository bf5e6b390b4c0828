#include "block/nbd/allocation.hpp"

#include <algorithm>

#include "block/nbd/protocol.hpp"
#include "block/qcow2/image.hpp"

namespace whistler::nbd {

namespace {

/// What `device` stands on, if it is an overlay.
BlockDevice* below(BlockDevice& device) {
  auto* const image = dynamic_cast<qcow2::Image*>(&device);
  return image == nullptr ? nullptr : image->backing();
}

struct Depth {
  BlockStatus status;
  std::uint32_t layer = 0;  ///< 1: the topmost; 0: none holds it
};

/// The first layer from the top that holds the bytes at `offset`.
Task<Result<Depth>> find_layer(BlockDevice& top, std::uint64_t offset, std::uint64_t bytes) {
  BlockDevice* device = &top;
  for (std::uint32_t layer = 1;; ++layer) {
    auto status = co_await device->block_status(offset, bytes);
    if (!status) {
      co_return std::unexpected(status.error());
    }
    bytes = std::min(bytes, std::max<std::uint64_t>(status->bytes, 1));
    status->bytes = bytes;
    BlockDevice* const next = status->data ? nullptr : below(*device);
    if (status->data || next == nullptr || offset >= next->size()) {
      co_return Depth{*status, status->data ? layer : 0};
    }
    bytes = std::min(bytes, next->size() - offset);
    device = next;
  }
}

class AllocationDepth final : public MetaContext {
 public:
  explicit AllocationDepth(std::shared_ptr<BlockDevice> device) : device_(std::move(device)) {}
  [[nodiscard]] std::string name() const override { return std::string(kAllocationDepth); }
  [[nodiscard]] Task<Result<Extent>> extent(std::uint64_t offset, std::uint64_t bytes) override {
    auto found = co_await find_layer(*device_, offset, bytes);
    if (!found) {
      co_return std::unexpected(found.error());
    }
    co_return Extent{found->status.bytes, found->layer};
  }

 private:
  std::shared_ptr<BlockDevice> device_;
};

}  // namespace

Task<Result<MetaContext::Extent>> allocation_at(BlockDevice& device, std::uint64_t offset,
                                                std::uint64_t bytes) {
  auto found = co_await find_layer(device, offset, bytes);
  if (!found) {
    co_return std::unexpected(found.error());
  }
  const bool hole = found->status.zero || found->layer == 0;
  co_return MetaContext::Extent{found->status.bytes, hole ? kStateHole | kStateZero : 0};
}

std::shared_ptr<MetaContext> make_allocation_depth(std::shared_ptr<BlockDevice> device) {
  return std::make_shared<AllocationDepth>(std::move(device));
}

}  // namespace whistler::nbd
