// Cutting and copying scattered guest memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "block/block_device.hpp"

namespace whistler {

/// A part of an IoVec as pieces of its own; short lists need no heap.
class IoSlice {
 public:
  IoSlice() = default;
  /// The `bytes` of `vec` from `offset` on; both must lie within it.
  IoSlice(IoVec vec, std::uint64_t offset, std::uint64_t bytes) { append(vec, offset, bytes); }
  IoSlice(const IoSlice&) = delete;
  IoSlice& operator=(const IoSlice&) = delete;

  void append(IoVec vec, std::uint64_t offset, std::uint64_t bytes);
  void append(void* data, std::size_t bytes) { push({data, bytes}); }
  /// Drops the first `bytes`.
  void advance(std::uint64_t bytes);
  /// What is left.
  [[nodiscard]] IoVec vec() const {
    const iovec* data = heap_.empty() ? inline_.data() : heap_.data();
    return {data + first_, size_ - first_};
  }
  operator IoVec() const { return vec(); }  // NOLINT: converts by design

 private:
  static constexpr std::size_t kInline = 8;
  void push(iovec piece);

  std::array<iovec, kInline> inline_{};
  std::vector<iovec> heap_;
  std::size_t size_ = 0;
  std::size_t first_ = 0;
};

/// Copies from `from` into `vec`, starting `offset` bytes into it.
void copy_to_iovec(IoVec vec, std::uint64_t offset, std::span<const std::uint8_t> from);
/// Copies out of `vec`, starting `offset` bytes into it.
void copy_from_iovec(std::span<std::uint8_t> to, IoVec vec, std::uint64_t offset);
/// Clears `bytes` of `vec` from `offset` on.
void zero_iovec(IoVec vec, std::uint64_t offset, std::uint64_t bytes);
/// Whether every byte of `vec` is zero.
[[nodiscard]] bool iovec_is_zero(IoVec vec);
/// Whether every byte is zero.
[[nodiscard]] bool is_zero(std::span<const std::uint8_t> bytes);

}  // namespace whistler
