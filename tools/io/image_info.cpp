#include "tools/io/image_info.hpp"

#include <fmt/format.h>

#include "block/formats/image.hpp"
#include "block/qcow2/image.hpp"
#include "tools/img/image_info.hpp"
#include "tools/io/report.hpp"

namespace whistler::tools::io {

namespace {

/// 0: the format has none.
std::uint64_t cluster_size(const OpenedImage& image) {
  if (image.qcow2 != nullptr) {
    return image.qcow2->header().geometry().cluster_size();
  }
  const auto* const foreign = image.node ? dynamic_cast<const formats::Image*>(image.node->device) : nullptr;
  return foreign != nullptr ? foreign->cluster_size() : 0;
}

}  // namespace

bool print_info(Ring& ring, const OpenedImage& image) {
  const auto* const qcow2 = image.qcow2;
  fmt::print("format name: {}\n", image.format);
  if (image.format == "file" || image.format == "host_device" || image.format == "null-co") {
    fmt::print("format name: {}\n", image.format);  // that of the protocol, after QEMU's manner
  }
  if (image.format == "null-co") {
    return false;  // knows no more of itself
  }
  fmt::print("cluster size: {}\n", size_text(static_cast<double>(cluster_size(image))));
  fmt::print("vm state offset: {}\n",
             size_text(qcow2 != nullptr ? static_cast<double>(qcow2->vm_state_offset()) : 0));
  if (image.node) {
    if (const auto specific = show_format_specific(ring, *image.node)) {
      fmt::print("{}", *specific);
    }
  }
  return true;
}

bool is_allocated(const OpenedImage& image, const BlockStatus& status) {
  return image.format == "raw" || status.data;
}

}  // namespace whistler::tools::io
