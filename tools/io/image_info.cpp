#include "tools/io/image_info.hpp"

#include <fmt/format.h>

#include "block/qcow2/image.hpp"
#include "tools/io/report.hpp"

namespace whistler::tools::io {

namespace {

const char* yes_no(bool value) { return value ? "true" : "false"; }

void print_qcow2(const qcow2::Header& header) {
  fmt::print("Format specific information:\n");
  fmt::print("    compat: {}\n", header.version >= 3 ? "1.1" : "0.10");
  fmt::print("    compression type: {}\n", header.compression == qcow2::Compression::kZstd ? "zstd" : "zlib");
  if (header.version >= 3) {
    fmt::print("    lazy refcounts: {}\n", yes_no((header.compatible & qcow2::kLazyRefcounts) != 0));
  }
  fmt::print("    refcount bits: {}\n", header.geometry().refcount_bits());
  if (header.version >= 3) {
    fmt::print("    corrupt: {}\n", yes_no((header.incompatible & qcow2::kCorruptBit) != 0));
    if (const auto data_file = header.data_file()) {
      fmt::print("    data file: {}\n", *data_file);
    }
    if (header.geometry().external_data) {
      fmt::print("    data file raw: {}\n", yes_no((header.autoclear & qcow2::kRawExternalData) != 0));
    }
    fmt::print("    extended l2: {}\n", yes_no(header.geometry().extended_l2));
  }
}

}  // namespace

void print_info(const OpenedImage& image) {
  const auto* const qcow2 = image.qcow2;
  fmt::print("format name: {}\n", image.format);
  fmt::print(
      "cluster size: {}\n",
      size_text(qcow2 != nullptr ? static_cast<double>(qcow2->header().geometry().cluster_size()) : 0));
  fmt::print("vm state offset: {}\n",
             size_text(qcow2 != nullptr ? static_cast<double>(qcow2->vm_state_offset()) : 0));
  if (qcow2 != nullptr) {
    print_qcow2(qcow2->header());
  }
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
