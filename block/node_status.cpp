#include "block/node_status.hpp"

#include <algorithm>

#include "block/qcow2/image.hpp"

namespace whistler {

namespace {

Task<Result<NodeStatus>> qcow2_status(const Node& node, std::uint64_t offset, std::uint64_t bytes) {
  auto extent = co_await node.qcow2->extent_at(offset, bytes);
  if (!extent) {
    co_return std::unexpected(extent.error());
  }
  NodeStatus status{.bytes = extent->bytes};
  status.data = extent->kind == qcow2::Kind::kData || extent->kind == qcow2::Kind::kCompressed;
  status.zero = extent->kind == qcow2::Kind::kZero;
  status.allocated = status.data || status.zero;
  if (extent->host) {
    status.offset = extent->host;
    status.file = node.data_file ? node.data_file.get() : node.file.get();
  }
  if (!status.allocated) {
    if (!node.backing) {
      status.zero = true;
    } else if (const auto end = node.backing->device->size(); offset >= end) {
      status.zero = true;
    } else {
      status.bytes = std::min(status.bytes, end - offset);
    }
  }
  co_return status;
}

}  // namespace

Task<Result<NodeStatus>> node_status(const Node& node, std::uint64_t offset, std::uint64_t bytes) {
  if (node.qcow2 != nullptr) {
    auto status = co_await qcow2_status(node, offset, bytes);
    co_return status;
  }
  const auto known = co_await node.device->block_status(offset, bytes);
  if (!known) {
    co_return std::unexpected(known.error());
  }
  NodeStatus status{.bytes = known->bytes,
                    .data = known->data && !known->zero,
                    .zero = known->zero,
                    .allocated = known->data};
  const bool is_file = node.host_file != nullptr;
  if (is_file || node.driver == "raw" || node.driver == "null-co" || node.driver == "blkdebug") {
    status.allocated = true;
    status.data = !known->zero;
    status.offset = offset + option_size(node.full_options, "offset").value_or(std::nullopt).value_or(0);
    const Node* file = &node;
    while (file->driver == "raw" && file->file) {
      file = file->file.get();
    }
    status.file = file;
    if (node.driver == "null-co") {
      status.zero = false;
      status.data = true;
    }
  }
  co_return status;
}

}  // namespace whistler
