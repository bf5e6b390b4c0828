#include "tools/io/special_writes.hpp"

#include <algorithm>

#include "block/iovec.hpp"
#include "block/qcow2/image.hpp"
#include "tools/io/requests.hpp"

namespace whistler::tools::io {

Task<Result<void>> write_compressed(OpenedImage& image, std::uint64_t offset, std::span<const iovec> from) {
  if (image.qcow2 == nullptr) {
    co_return fail(ErrorCode::kUnsupported, image.device->name() + ": does not compress");
  }
  const auto bytes = iovec_bytes(from);
  if (auto within = check_range(*image.device, offset, bytes); !within) {
    co_return within;
  }
  if (bytes == 0) {
    co_return Result<void>();
  }
  const auto cluster = image.qcow2->header().geometry().cluster_size();
  const bool whole = bytes % cluster == 0 || offset + bytes == image.device->size();
  if (offset % cluster != 0 || !whole) {
    co_return fail(ErrorCode::kInvalid, image.device->name() + ": compresses whole clusters only");
  }
  for (std::uint64_t at = 0; at < bytes; at += cluster) {
    const auto status = co_await image.device->block_status(offset + at, 1);
    if (status && status->data && !status->zero) {
      co_return fail(ErrorCode::kIo, image.device->name() + ": there is data already");
    }
    const auto length = std::min(cluster, bytes - at);
    const iovec piece{static_cast<std::uint8_t*>(from.front().iov_base) + at,
                      static_cast<std::size_t>(length)};
    auto written = co_await image.qcow2->write_compressed(offset + at, {&piece, 1});
    if (!written) {
      co_return written;
    }
  }
  co_return Result<void>();
}

Task<Result<void>> zero_quickly(OpenedImage& image, std::uint64_t offset, std::uint64_t bytes,
                                ZeroFlags flags) {
  auto& device = *image.device;
  if (auto within = check_range(device, offset, bytes); !within) {
    co_return within;
  }
  if (bytes != 0 && (image.format == "vpc" || image.format == "vdi" || image.format == "luks")) {
    co_return fail(ErrorCode::kUnsupported, device.name() + ": zeroes by writing them");
  }
  if (image.qcow2 != nullptr) {
    // The parts that do not fill a cluster must be zeroes already, or the rest of their cluster zeroes too.
    const auto cluster = image.qcow2->header().geometry().cluster_size();
    for (const auto edge : {offset, offset + bytes}) {
      if (edge % cluster == 0 || edge == device.size()) {
        continue;
      }
      const auto begin = edge / cluster * cluster;
      const auto end = std::min(begin + cluster, device.size());
      for (auto at = begin; at < end;) {
        const auto status = co_await device.block_status(at, end - at);
        if (!status) {
          co_return std::unexpected(status.error());
        }
        if (!status->zero) {
          co_return fail(ErrorCode::kUnsupported, device.name() + ": zeroes part of a cluster by writing it");
        }
        at += status->bytes;
      }
    }
  }
  auto done = co_await zero_range(device, offset, bytes, flags);
  co_return done;
}

}  // namespace whistler::tools::io
