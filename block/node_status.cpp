#include "block/node_status.hpp"

#include <algorithm>

#include "block/formats/image.hpp"
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
  if (extent->host && !node.qcow2->encrypted()) {  // encrypted clusters do not lie there as they are
    status.offset = extent->host;
    status.file = node.data_file ? node.data_file.get() : node.file.get();
    while (status.file->driver == "blkdebug" && status.file->file) {
      status.file = status.file->file.get();
    }
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

/// The node of a file that a foreign format's image lies in.
const Node* node_of(const Node& node, const BlockDevice* file) {
  for (const auto& other : node.others) {
    if (other->device == file) {
      return other.get();
    }
  }
  return node.file.get();
}

Task<Result<NodeStatus>> foreign_status(const Node& node, formats::Image& image, std::uint64_t offset,
                                        std::uint64_t bytes) {
  auto place = co_await image.locate(offset, bytes);
  if (!place) {
    co_return std::unexpected(place.error());
  }
  NodeStatus status{.bytes = place->bytes};
  status.data = place->kind == formats::PlaceKind::kData || place->kind == formats::PlaceKind::kCompressed;
  status.zero = place->kind == formats::PlaceKind::kZero;
  status.allocated = status.data || status.zero;
  if (place->kind == formats::PlaceKind::kData) {
    status.offset = place->host_offset;
    status.file = node_of(node, place->file);
    if (place->plain && place->host_offset < place->file->size()) {
      const auto inside = std::min(place->bytes, place->file->size() - place->host_offset);
      auto below = co_await place->file->block_status(place->host_offset, inside);
      if (below) {
        status.bytes = below->bytes;
        status.zero = below->zero;
      }
    }
  } else if (place->kind == formats::PlaceKind::kHole) {
    const auto end = node.backing ? node.backing->device->size() : 0;
    if (offset >= end) {
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
  if (auto* const image = dynamic_cast<formats::Image*>(node.device); image != nullptr && bytes != 0) {
    if (!image->tells_places()) {
      co_return NodeStatus{.bytes = bytes, .data = true, .allocated = true};
    }
    auto status = co_await foreign_status(node, *image, offset, bytes);
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
  const Node* file = &node;
  while (file->driver == "raw" && file->file) {
    file = file->file.get();
  }
  if (file->driver == "nbd") {  // what its server says is all there is
    const auto shift = option_size(node.full_options, "offset").value_or(std::nullopt).value_or(0);
    const auto said = co_await file->device->block_status(offset + shift, known->bytes);
    if (!said) {
      co_return std::unexpected(said.error());
    }
    status.bytes = std::min(known->bytes, said->bytes);
    status.data = said->data;
    status.allocated = status.data || status.zero;
    if (status.allocated) {
      status.offset = offset + shift;
      status.file = file;
    }
    co_return status;
  }
  const bool is_file = node.host_file != nullptr;
  if (is_file || node.driver == "raw" || node.driver == "null-co" || node.driver == "blkdebug") {
    status.allocated = true;
    status.data = !known->zero;
    status.offset = offset + option_size(node.full_options, "offset").value_or(std::nullopt).value_or(0);
    status.file = file;
    if (node.driver == "null-co") {
      status.zero = false;
      status.data = true;
    }
  }
  co_return status;
}

}  // namespace whistler
