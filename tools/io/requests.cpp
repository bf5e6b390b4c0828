#include "tools/io/requests.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "tools/io/numbers.hpp"

namespace whistler::tools::io {

namespace {

constexpr std::size_t kAlignment = 4096;
constexpr std::size_t kMisalignment = 16;

}  // namespace

Buffer::Buffer(const Session& session, std::uint64_t bytes, std::uint8_t fill)
    : size_(static_cast<std::size_t>(bytes)) {
  const std::size_t shift = session.misaligned() ? kMisalignment : 0;
  const auto room = (size_ + shift + kAlignment) / kAlignment * kAlignment;
  memory_.reset(static_cast<std::uint8_t*>(std::aligned_alloc(kAlignment, room)));
  if (memory_ == nullptr) {
    throw std::bad_alloc();
  }
  data_ = memory_.get() + shift;
  std::memset(data_, fill, size_);
}

void Buffer::Free::operator()(std::uint8_t* memory) const { std::free(memory); }

std::optional<Lengths> parse_lengths(const Session& session, std::span<const char* const> words) {
  Lengths lengths;
  for (const auto* const word : words) {
    const auto bytes = parse_bytes(session, word);
    if (!bytes) {
      return std::nullopt;
    }
    if (*bytes > kLongestRequest) {
      fmt::print("Argument '{}' exceeds maximum size {}\n", word, kLongestRequest);
      return std::nullopt;
    }
    if (*bytes > kLongestRequest - lengths.bytes) {
      fmt::print("The total number of bytes exceed the maximum size {}\n", kLongestRequest);
      return std::nullopt;
    }
    lengths.each.push_back(*bytes);
    lengths.bytes += *bytes;
  }
  return lengths;
}

Vector make_vector(const Session& session, const Lengths& lengths, std::uint8_t fill) {
  Vector vector{Buffer(session, lengths.bytes, fill), {}};
  auto* at = vector.buffer.bytes().data();
  for (const auto bytes : lengths.each) {
    vector.pieces.push_back({at, static_cast<std::size_t>(bytes)});
    at += bytes;
  }
  return vector;
}

Result<void> check_range(const BlockDevice& device, std::uint64_t offset, std::uint64_t bytes) {
  if (offset > device.size() || bytes > device.size() - offset) {
    return fail(ErrorCode::kIo,
                fmt::format("{}: {} bytes at {} lie beyond its end", device.name(), bytes, offset));
  }
  return {};
}

Task<Result<void>> read_range(BlockDevice& device, std::uint64_t offset, std::span<const iovec> to) {
  const auto bytes = iovec_bytes(to);
  auto done = check_range(device, offset, bytes);
  if (done && bytes != 0) {
    done = co_await device.readv(offset, to);
  }
  co_return done;
}

Task<Result<void>> write_range(BlockDevice& device, std::uint64_t offset, std::span<const iovec> from,
                               WriteFlags flags) {
  const auto bytes = iovec_bytes(from);
  auto done = check_range(device, offset, bytes);
  if (done && bytes != 0) {
    done = co_await device.writev(offset, from, flags);
  }
  co_return done;
}

Task<Result<void>> zero_range(BlockDevice& device, std::uint64_t offset, std::uint64_t bytes,
                              ZeroFlags flags) {
  auto done = check_range(device, offset, bytes);
  if (done && bytes != 0) {
    done = co_await device.write_zeroes(offset, bytes, flags);
  }
  co_return done;
}

Task<Result<void>> discard_range(BlockDevice& device, std::uint64_t offset, std::uint64_t bytes) {
  auto done = check_range(device, offset, bytes);
  if (done && bytes != 0) {
    done = co_await device.discard(offset, bytes);
  }
  co_return done;
}

}  // namespace whistler::tools::io
