#include "block/chain_status.hpp"

#include <algorithm>

namespace whistler {

namespace {

Task<Result<ChainStatus>> one_stretch(BlockDevice* layer, const BlockDevice* base, std::uint64_t offset,
                                      std::uint64_t bytes) {
  bool top = true;
  for (; layer != nullptr && layer != base; layer = layer->backing(), top = false) {
    if (!top && offset >= layer->size()) {
      // Behind the end of a shorter backing file there are zeroes; those belong to the layer above it.
      co_return ChainStatus{bytes, true, true, false};
    }
    bytes = std::min(bytes, layer->size() - offset);
    auto status = co_await layer->block_status(offset, bytes);
    if (!status) {
      co_return std::unexpected(status.error());
    }
    bytes = std::min(bytes, status->bytes);
    if (status->data) {
      co_return ChainStatus{bytes, true, status->zero, !status->zero};
    }
    if (layer->backing() == nullptr) {
      co_return ChainStatus{bytes, false, true, false};
    }
  }
  co_return ChainStatus{bytes, false, false, false};
}

bool same_kind(const ChainStatus& a, const ChainStatus& b) {
  return a.allocated == b.allocated && a.zero == b.zero && a.data == b.data;
}

}  // namespace

Task<Result<ChainStatus>> chain_status(BlockDevice& top, const BlockDevice* base, std::uint64_t offset,
                                       std::uint64_t bytes) {
  auto status = co_await one_stretch(&top, base, offset, bytes);
  while (status && status->bytes != 0 && status->bytes < bytes) {
    auto next = co_await one_stretch(&top, base, offset + status->bytes, bytes - status->bytes);
    if (!next || next->bytes == 0 || !same_kind(*status, *next)) {
      break;  // an error is reported when the range itself is asked for
    }
    status->bytes += next->bytes;
  }
  co_return status;
}

}  // namespace whistler
