// Opening the nodes that do something to the requests of another node and keep no bytes of their own.
#include <fmt/format.h>

#include "block/compress_on_write.hpp"
#include "block/copy_on_read.hpp"
#include "block/node_opener.hpp"
#include "block/qcow2/image.hpp"

namespace whistler::node_detail {

bool is_filter(std::string_view driver) { return driver == "compress" || driver == "copy-on-read"; }

Task<Result<OpenNode>> Opener::open_filter(NodeName name, NodeFlags flags, const Above* above) {
  auto options = std::move(name.options);
  const auto driver = option_text(options, "driver").value_or("");
  if (auto ok = take_common(options, flags); !ok) {
    co_return std::unexpected(ok.error());
  }
  if (auto ok = check_child(options, "file"); !ok) {
    co_return std::unexpected(ok.error());
  }
  auto child = take_child(options, "file");
  if (name.filename.empty() && child.empty()) {
    co_return refuse("A block device must be specified for \"file\"");
  }
  if (auto ok = check_unused(options, driver, false); !ok) {
    co_return std::unexpected(ok.error());
  }
  if (flags.read_only && driver == "copy-on-read") {
    co_return refuse("Block node is read-only");
  }
  NodeName child_name{name.filename, std::move(child)};  // g++ 12 miscompiles it in the call
  const auto here = Above::one_more(above);
  auto below = co_await open(std::move(child_name), flags, &here);
  if (!below) {
    co_return below;
  }
  OpenNode opened;
  opened.node = std::make_unique<Node>();
  auto& node = *opened.node;
  node.driver = driver;
  node.file = std::move(below->node);
  if (driver == "compress") {
    if (node.file->qcow2 == nullptr) {
      co_return refuse(
          fmt::format("Compression is not supported for underlying format: {}", node.file->driver));
    }
    opened.device = std::make_unique<CompressOnWrite>(std::move(below->device), *node.file->qcow2);
  } else {
    const auto* image = node.file.get();
    while (image->qcow2 == nullptr && image->file) {
      image = image->file.get();
    }
    const auto cluster = image->qcow2 != nullptr ? image->qcow2->header().geometry().cluster_size() : 512;
    opened.device = std::make_unique<CopyOnRead>(std::move(below->device), cluster);
  }
  node.device = opened.device.get();
  name_format_node(node, Options::object(), false);
  co_return opened;
}

}  // namespace whistler::node_detail
