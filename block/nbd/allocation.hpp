// What base:allocation and qemu:allocation-depth say of a disk and the chain below it.
#pragma once

#include "block/nbd/export.hpp"

namespace whistler::nbd {

/// NBD_STATE_HOLE and NBD_STATE_ZERO of the bytes at `offset`, through the whole chain.
[[nodiscard]] Task<Result<MetaContext::Extent>> allocation_at(BlockDevice& device, std::uint64_t offset,
                                                              std::uint64_t bytes);

/// "qemu:allocation-depth": in which layer the bytes are, 1 the topmost, 0 none.
[[nodiscard]] std::shared_ptr<MetaContext> make_allocation_depth(std::shared_ptr<BlockDevice> device);

}  // namespace whistler::nbd
