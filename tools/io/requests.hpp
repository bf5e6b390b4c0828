// The requests the commands make: memory for them, and the checks every one passes first.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "tools/io/session.hpp"

namespace whistler::tools::io {

/// Memory a direct request may use as it is; or, for a misaligned session, on purpose may not.
class Buffer {
 public:
  Buffer(const Session& session, std::uint64_t bytes, std::uint8_t fill);

  [[nodiscard]] std::span<std::uint8_t> bytes() const { return {data_, size_}; }

 private:
  struct Free {
    void operator()(std::uint8_t* memory) const;
  };
  std::unique_ptr<std::uint8_t, Free> memory_;
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

/// One buffer in pieces of given lengths, as readv and writev want it.
struct Vector {
  Buffer buffer;
  std::vector<iovec> pieces;
};
/// The lengths of the pieces, from words; complains about what is no length. `bytes` is their sum.
struct Lengths {
  std::vector<std::uint64_t> each;
  std::uint64_t bytes = 0;
};
[[nodiscard]] std::optional<Lengths> parse_lengths(const Session& session,
                                                   std::span<const char* const> words);
[[nodiscard]] Vector make_vector(const Session& session, const Lengths& lengths, std::uint8_t fill);

/// kIo, as the host would say, for what does not lie within the disk.
[[nodiscard]] Result<void> check_range(const BlockDevice& device, std::uint64_t offset, std::uint64_t bytes);

/// Each does nothing, successfully, for no bytes. `to` and `from` must stay until the task has ended.
[[nodiscard]] Task<Result<void>> read_range(BlockDevice& device, std::uint64_t offset,
                                            std::span<const iovec> to);
[[nodiscard]] Task<Result<void>> write_range(BlockDevice& device, std::uint64_t offset,
                                             std::span<const iovec> from, WriteFlags flags);
[[nodiscard]] Task<Result<void>> zero_range(BlockDevice& device, std::uint64_t offset, std::uint64_t bytes,
                                            ZeroFlags flags);
[[nodiscard]] Task<Result<void>> discard_range(BlockDevice& device, std::uint64_t offset,
                                               std::uint64_t bytes);

}  // namespace whistler::tools::io
