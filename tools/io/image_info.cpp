#include "tools/io/image_info.hpp"

#include <fmt/format.h>

#include "block/qcow2/image.hpp"
#include "tools/img/image_info.hpp"
#include "tools/io/report.hpp"

namespace whistler::tools::io {

bool print_info(Ring& ring, const OpenedImage& image) {
  const auto* const qcow2 = image.qcow2;
  fmt::print("format name: {}\n", image.format);
  if (image.format == "file" || image.format == "host_device" || image.format == "null-co") {
    fmt::print("format name: {}\n", image.format);  // that of the protocol, after QEMU's manner
  }
  if (image.format == "null-co") {
    return false;  // knows no more of itself
  }
  fmt::print(
      "cluster size: {}\n",
      size_text(qcow2 != nullptr ? static_cast<double>(qcow2->header().geometry().cluster_size()) : 0));
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

Task<Result<void>> resize_with(OpenedImage& image, std::uint64_t bytes, std::string mode) {
  if (image.qcow2 != nullptr && bytes % 512 != 0) {
    co_return fail(ErrorCode::kInvalid, "The new size must be a multiple of 512");
  }
  const auto old_size = image.device->size();
  auto done = co_await image.device->resize(bytes);
  if (done && mode != "off" && bytes > old_size) {
    const auto how = mode == "metadata" ? Preallocation::kMetadata
                     : mode == "falloc" ? Preallocation::kFalloc
                                        : Preallocation::kFull;
    done = co_await image.device->preallocate(old_size, bytes - old_size, how);
  }
  co_return done;
}

}  // namespace whistler::tools::io
