// Requests only some images know: compressed data, the state of a machine, zeroes that must be quick.
#pragma once

#include <cstdint>
#include <span>

#include "tools/io/session.hpp"

namespace whistler::tools::io {

/// Compressed clusters where nothing is yet. kUnsupported but for qcow2.
[[nodiscard]] Task<Result<void>> write_compressed(OpenedImage& image, std::uint64_t offset,
                                                  std::span<const iovec> from);

/// Zeroes only where that means changing tables, not writing data; else kUnsupported, nothing done.
[[nodiscard]] Task<Result<void>> zero_quickly(OpenedImage& image, std::uint64_t offset, std::uint64_t bytes,
                                              ZeroFlags flags);

/// The area behind the disk that holds the state of a machine; `offset` counts from its begin.
[[nodiscard]] Task<Result<void>> read_vm_state(OpenedImage& image, std::uint64_t offset,
                                               std::span<const iovec> to);
[[nodiscard]] Task<Result<void>> write_vm_state(OpenedImage& image, std::uint64_t offset,
                                                std::span<const iovec> from);

}  // namespace whistler::tools::io
