#include "block/iovec.hpp"

#include <algorithm>
#include <cstring>

namespace whistler {

namespace {

/// Calls visit(pointer, bytes) for each piece of the part of `vec`.
template <typename Visit>
void for_each_piece(IoVec vec, std::uint64_t offset, std::uint64_t bytes, Visit visit) {
  for (const auto& piece : vec) {
    if (bytes == 0) {
      return;
    }
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const auto length = std::min<std::uint64_t>(piece.iov_len - offset, bytes);
    visit(static_cast<std::uint8_t*>(piece.iov_base) + offset, static_cast<std::size_t>(length));
    bytes -= length;
    offset = 0;
  }
}

}  // namespace

void IoSlice::push(iovec piece) {
  if (heap_.empty() && size_ < kInline) {
    inline_[size_] = piece;
  } else {
    if (heap_.empty()) {
      heap_.assign(inline_.begin(), inline_.end());
    }
    heap_.push_back(piece);
  }
  ++size_;
}

void IoSlice::append(IoVec vec, std::uint64_t offset, std::uint64_t bytes) {
  for_each_piece(vec, offset, bytes,
                 [this](std::uint8_t* data, std::size_t length) { push({data, length}); });
}

void IoSlice::advance(std::uint64_t bytes) {
  iovec* pieces = heap_.empty() ? inline_.data() : heap_.data();
  while (first_ < size_ && bytes >= pieces[first_].iov_len) {
    bytes -= pieces[first_].iov_len;
    ++first_;
  }
  if (first_ < size_ && bytes != 0) {
    pieces[first_].iov_base = static_cast<std::uint8_t*>(pieces[first_].iov_base) + bytes;
    pieces[first_].iov_len -= bytes;
  }
}

void copy_to_iovec(IoVec vec, std::uint64_t offset, std::span<const std::uint8_t> from) {
  const std::uint8_t* source = from.data();
  for_each_piece(vec, offset, from.size(), [&](std::uint8_t* data, std::size_t length) {
    std::memcpy(data, source, length);
    source += length;
  });
}

void copy_from_iovec(std::span<std::uint8_t> to, IoVec vec, std::uint64_t offset) {
  std::uint8_t* target = to.data();
  for_each_piece(vec, offset, to.size(), [&](const std::uint8_t* data, std::size_t length) {
    std::memcpy(target, data, length);
    target += length;
  });
}

void zero_iovec(IoVec vec, std::uint64_t offset, std::uint64_t bytes) {
  for_each_piece(vec, offset, bytes,
                 [](std::uint8_t* data, std::size_t length) { std::memset(data, 0, length); });
}

bool is_zero(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) {
    return true;
  }
  // The first byte is zero and every byte equals the one after it.
  return bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

bool iovec_is_zero(IoVec vec) {
  return std::all_of(vec.begin(), vec.end(), [](const iovec& piece) {
    return is_zero({static_cast<const std::uint8_t*>(piece.iov_base), piece.iov_len});
  });
}

}  // namespace whistler
