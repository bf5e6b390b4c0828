// What stands between a guest's writes and the host's disk.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.hpp"

namespace whistler {

/// What stands between the guest's writes and the disk; the names and meanings are QEMU's.
enum class CacheMode : std::uint8_t {
  kWriteback,     ///< host page cache; durable when the guest flushes
  kNone,          ///< past the page cache (O_DIRECT); durable when the guest flushes
  kWritethrough,  ///< host page cache; every write is durable when it ends
  kDirectsync,    ///< O_DIRECT, and every write is durable when it ends
  kUnsafe,        ///< host page cache; flushes do nothing: a host crash may lose the image
};

[[nodiscard]] constexpr bool is_direct(CacheMode mode) {
  return mode == CacheMode::kNone || mode == CacheMode::kDirectsync;
}
[[nodiscard]] constexpr bool is_writethrough(CacheMode mode) {
  return mode == CacheMode::kWritethrough || mode == CacheMode::kDirectsync;
}
/// The mode of that name ("writeback", "none", "writethrough", "directsync", "unsafe").
[[nodiscard]] Result<CacheMode> parse_cache_mode(std::string_view name);

}  // namespace whistler
