#include "tools/img/map_entry.hpp"

#include "block/node_status.hpp"

namespace whistler::tools {

namespace {

/// What lies below a layer that only passes requests on.
const Node* skip_filters(const Node* node) {
  while (node != nullptr && node->driver == "blkdebug" && node->file) {
    node = node->file.get();
  }
  return node;
}

}  // namespace

Result<MapEntry> map_entry_at(Ring& ring, const Node& top, std::uint64_t start, std::uint64_t bytes) {
  MapEntry entry{.start = start};
  for (const Node* node = skip_filters(&top); node != nullptr;
       node = skip_filters(node->backing.get()), ++entry.depth) {
    const auto status = sync_wait(ring, node_status(*node, start, bytes));
    if (!status) {
      return std::unexpected(status.error());
    }
    bytes = status->bytes;
    entry.present = status->allocated;
    entry.zero = status->zero;
    entry.data = status->data;
    entry.offset = status->offset;
    entry.filename = status->file != nullptr && status->offset ? status->file->filename : "";
    if (status->zero || status->data || !node->backing) {
      break;
    }
  }
  entry.length = bytes;
  return entry;
}

}  // namespace whistler::tools
