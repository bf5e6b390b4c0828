// What the formats and protocols of other parts add to the information about an image.
#include "block/file.hpp"
#include "block/formats/vmdk.hpp"
#include "tools/img/encryption.hpp"
#include "tools/img/image_info.hpp"

namespace whistler::tools {

namespace {

std::uint64_t allocated_bytes(const BlockDevice& device) {
  const auto* const file = dynamic_cast<const FileDevice*>(&device);
  return file == nullptr ? 0 : file->allocated_bytes();
}

Options vmdk_info(const formats::VmdkImage& image, const Node& node, Options& info) {
  Options extents = Options::array();
  auto total = node.lowest_file() != nullptr ? node.lowest_file()->allocated_bytes() : 0;
  for (const auto& extent : image.extents()) {
    Options one = {
        {"filename", node.file->filename}, {"format", extent.type_name}, {"virtual-size", extent.bytes}};
    for (const auto& other : node.others) {
      if (extent.own && other->device == extent.own.get()) {
        one["filename"] = other->filename;
      }
    }
    if (extent.own) {
      total += allocated_bytes(*extent.own);
    }
    if (extent.sparse) {
      one["cluster-size"] = extent.sparse->grain_bytes();
      if (extent.sparse->compressed()) {
        one["compressed"] = true;
      }
    }
    extents.push_back(std::move(one));
  }
  info["actual-size"] = total;
  return {{"cid", image.descriptor().cid},
          {"parent-cid", image.descriptor().parent_cid},
          {"create-type", image.descriptor().create_type},
          {"extents", std::move(extents)}};
}

}  // namespace

Options format_specific_info(Ring& ring, const Node& node) {
  static_cast<void>(ring);
  const auto* const image = dynamic_cast<const formats::Image*>(node.device);
  if (image == nullptr) {
    return encryption_info(node);
  }
  Options info = Options::object();
  if (image->cluster_size() != 0) {
    info["cluster-size"] = image->cluster_size();
  }
  if (const auto* const vmdk = dynamic_cast<const formats::VmdkImage*>(image)) {
    info["format-specific"] = {{"type", "vmdk"}, {"data", vmdk_info(*vmdk, node, info)}};
  }
  return info;
}

}  // namespace whistler::tools
