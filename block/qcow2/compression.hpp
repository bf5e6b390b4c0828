// One compressed cluster in memory.
#pragma once

#include <span>
#include <vector>

#include "base/result.hpp"
#include "block/qcow2/format.hpp"

namespace whistler::qcow2 {

/// Fills `to`, a whole cluster, from `from`, which may have padding behind the compressed data. False if it
/// is damaged or too short.
[[nodiscard]] bool decompress_cluster(Compression method, std::span<const std::uint8_t> from,
                                      std::span<std::uint8_t> to);

/// The compressed form, or nothing if it would not be smaller than the cluster.
[[nodiscard]] std::vector<std::uint8_t> compress_cluster(Compression method,
                                                         std::span<const std::uint8_t> from);

}  // namespace whistler::qcow2
