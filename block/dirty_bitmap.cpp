#include "block/dirty_bitmap.hpp"

#include <algorithm>

namespace whistler {

std::uint64_t DirtyBitmap::count() const {
  if (!later_) {
    return bits_.count();
  }
  auto both = bits_;
  both.merge(*later_);
  return both.count();
}

void DirtyBitmap::record(std::uint64_t offset, std::uint64_t bytes) {
  if (enabled_) {
    (later_ ? *later_ : bits_).set(offset, bytes);
  }
}

void DirtyBitmap::resize(std::uint64_t bytes) {
  bits_.resize(bytes);
  if (later_) {
    later_->resize(bytes);
  }
}

void DirtyBitmap::lend() { later_.emplace(bits_.disk_bytes(), bits_.granularity_bits()); }

void DirtyBitmap::give_back(DirtyBits bits) {
  bits_ = std::move(bits);
  bits_.merge(*later_);
  later_.reset();
}

void DirtyBitmaps::recorded(std::uint64_t offset, std::uint64_t bytes) {
  for (const auto& bitmap : all_) {
    bitmap->record(offset, bytes);
  }
}

void DirtyBitmaps::resized(std::uint64_t bytes) {
  for (const auto& bitmap : all_) {
    bitmap->resize(bytes);
  }
}

DirtyBitmaps::Bitmap DirtyBitmaps::find(std::string_view name) const {
  const auto found = std::ranges::find_if(all_, [&](const Bitmap& bitmap) { return bitmap->name() == name; });
  return found == all_.end() ? nullptr : *found;
}

}  // namespace whistler
