#include "block/plain_zeroes.hpp"

#include <algorithm>
#include <vector>

namespace whistler {

namespace {
constexpr std::uint64_t kChunk = 1024 * 1024;
}

Task<Result<void>> write_plain_zeroes(BlockDevice& device, std::uint64_t offset, std::uint64_t bytes) {
  std::vector<std::uint8_t> zeroes(static_cast<std::size_t>(std::min(bytes, kChunk)));
  Result<void> done;
  while (done && bytes != 0) {
    const iovec vec{zeroes.data(), static_cast<std::size_t>(std::min<std::uint64_t>(bytes, zeroes.size()))};
    done = co_await device.writev(offset, {&vec, 1});
    offset += vec.iov_len;
    bytes -= vec.iov_len;
  }
  co_return done;
}

}  // namespace whistler
