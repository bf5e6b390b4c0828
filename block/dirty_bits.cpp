#include "block/dirty_bits.hpp"

#include <algorithm>

namespace whistler {

namespace {

std::uint64_t bit_count(std::uint64_t disk_bytes, unsigned granularity_bits) {
  const auto mask = (std::uint64_t{1} << granularity_bits) - 1;
  return (disk_bytes >> granularity_bits) + ((disk_bytes & mask) != 0 ? 1 : 0);
}

}  // namespace

std::uint64_t DirtyBits::bytes_for(std::uint64_t disk_bytes, unsigned granularity_bits) {
  const auto bits = bit_count(disk_bytes, granularity_bits);
  return bits / 8 + (bits % 8 != 0 ? 1 : 0);
}

DirtyBits::DirtyBits(std::uint64_t disk_bytes, unsigned granularity_bits)
    : disk_bytes_(disk_bytes),
      granularity_bits_(granularity_bits),
      bits_(static_cast<std::size_t>(bytes_for(disk_bytes, granularity_bits))) {}

void DirtyBits::set(std::uint64_t offset, std::uint64_t bytes) {
  if (offset >= disk_bytes_ || bytes == 0) {
    return;
  }
  const auto last = (offset + std::min(bytes, disk_bytes_ - offset) - 1) >> granularity_bits_;
  for (auto bit = offset >> granularity_bits_; bit <= last;) {
    if (bit % 8 == 0 && last - bit >= 7) {
      bits_[static_cast<std::size_t>(bit / 8)] = 0xff;
      bit += 8;
    } else {
      auto& byte = bits_[static_cast<std::size_t>(bit / 8)];
      byte = static_cast<std::uint8_t>(byte | 1U << bit % 8);
      ++bit;
    }
  }
}

bool DirtyBits::get(std::uint64_t offset) const {
  const auto bit = offset >> granularity_bits_;
  return offset < disk_bytes_ && (bits_[static_cast<std::size_t>(bit / 8)] >> bit % 8 & 1) != 0;
}

void DirtyBits::clear() { std::fill(bits_.begin(), bits_.end(), std::uint8_t{0}); }

void DirtyBits::clear(std::uint64_t offset, std::uint64_t bytes) {
  const auto end = std::min(disk_bytes_, offset + bytes);
  for (; offset < end; offset += granularity()) {
    const auto bit = offset >> granularity_bits_;
    auto& byte = bits_[static_cast<std::size_t>(bit / 8)];
    byte = static_cast<std::uint8_t>(byte & ~(1U << bit % 8));
  }
}

void DirtyBits::merge(const DirtyBits& other) {
  if (other.granularity_bits_ == granularity_bits_) {
    for (std::size_t i = 0; i < std::min(bits_.size(), other.bits_.size()); ++i) {
      bits_[i] = static_cast<std::uint8_t>(bits_[i] | other.bits_[i]);
    }
    clear_tail();
    return;
  }
  for (std::uint64_t offset = 0; offset < other.disk_bytes_;) {
    const auto next = other.stretch(offset);
    if (next.dirty) {
      set(offset, next.bytes);
    }
    offset += next.bytes;
  }
}

void DirtyBits::resize(std::uint64_t disk_bytes) {
  disk_bytes_ = disk_bytes;
  const auto bytes = static_cast<std::size_t>(bytes_for(disk_bytes, granularity_bits_));
  if (bytes < bits_.size()) {  // memory that comes back later would not be zero
    std::fill(bits_.begin() + static_cast<std::ptrdiff_t>(bytes), bits_.end(), std::uint8_t{0});
  }
  bits_.resize(bytes);
  clear_tail();
}

DirtyBits::Stretch DirtyBits::stretch(std::uint64_t offset) const {
  if (offset >= disk_bytes_) {
    return {};
  }
  const bool dirty = get(offset);
  const auto same = static_cast<std::uint8_t>(dirty ? 0xff : 0);
  const auto end = bit_count(disk_bytes_, granularity_bits_);
  auto bit = offset >> granularity_bits_;
  while (bit < end) {
    const auto byte = bits_[static_cast<std::size_t>(bit / 8)];
    if (bit % 8 == 0 && byte == same) {
      bit += 8;
    } else if ((byte >> bit % 8 & 1) == (dirty ? 1 : 0)) {
      ++bit;
    } else {
      break;
    }
  }
  return {dirty, bit >= end ? disk_bytes_ - offset : (bit << granularity_bits_) - offset};
}

std::uint64_t DirtyBits::count() const {
  std::uint64_t bytes = 0;
  for (std::uint64_t offset = 0; offset < disk_bytes_;) {
    const auto next = stretch(offset);
    bytes += next.dirty ? next.bytes : 0;
    offset += next.bytes;
  }
  return bytes;
}

void DirtyBits::clear_tail() {
  const auto bits = bit_count(disk_bytes_, granularity_bits_);
  if (bits % 8 != 0) {
    bits_.back() = static_cast<std::uint8_t>(bits_.back() & ((1U << bits % 8) - 1));
  }
}

}  // namespace whistler
