#include "block/request.hpp"

#include <fmt/format.h>

namespace whistler {

Result<void> check_request(const BlockDevice& device, std::uint64_t offset, std::uint64_t bytes, bool write) {
  if (write && device.read_only()) {
    return fail(ErrorCode::kPermission, fmt::format("{}: is open read-only", device.name()));
  }
  if (offset > device.size() || bytes > device.size() - offset) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: {} bytes at offset {} are beyond the end of the disk ({} bytes)",
                            device.name(), bytes, offset, device.size()));
  }
  return {};
}

}  // namespace whistler
