#include "block/qcow2/slice_cache.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace whistler::qcow2 {

namespace {
constexpr std::size_t kMinSlices = 16;
constexpr std::size_t kMaxJoined = 256;  ///< slices in one write
}  // namespace

SliceCache::SliceCache(BlockDevice& file, std::string what, std::uint32_t slice_bytes, std::uint64_t limit,
                       std::uint64_t dirty_limit)
    : file_(file),
      what_(std::move(what)),
      slice_bytes_(slice_bytes),
      max_slices_(std::max(kMinSlices, static_cast<std::size_t>(limit / slice_bytes))),
      max_dirty_(std::max(kMinSlices / 2, static_cast<std::size_t>(dirty_limit / slice_bytes))) {}

SliceCache::Pin SliceCache::find(std::uint64_t offset) {
  const auto found = slices_.find(offset);
  if (found == slices_.end() || found->second->loading) {
    return {};
  }
  Slice& slice = *found->second;
  ++statistics_.hits;
  if (by_use_.front() != &slice) {
    by_use_.splice(by_use_.begin(), by_use_, slice.position);
  }
  return {*this, slice};
}

Task<Result<SliceCache::Pin>> SliceCache::get(std::uint64_t offset) {
  if (auto pin = find(offset)) {
    co_return pin;
  }
  const auto found = slices_.find(offset);
  if (found != slices_.end()) {  // somebody else is loading it
    Pin pin(*this, *found->second);
    while (pin.slice_->loading) {
      co_await pin.slice_->loaded.wait();
    }
    if (pin.slice_->error) {
      co_return std::unexpected(*pin.slice_->error);
    }
    co_return pin;
  }
  make_room();
  auto owned = std::make_unique<Slice>();
  Slice& slice = *owned;
  slice.offset = offset;
  slice.data = std::make_unique_for_overwrite<std::uint8_t[]>(slice_bytes_);
  slice.loading = true;
  slices_.emplace(offset, std::move(owned));
  by_use_.push_front(&slice);
  slice.position = by_use_.begin();
  ++statistics_.loads;
  Pin pin(*this, slice);
  const iovec vec{slice.data.get(), slice_bytes_};
  file_.debug_event(what_ == "L2 table" ? DebugEvent::kL2Load : DebugEvent::kRefblockLoad);
  auto read = co_await file_.readv(offset, {&vec, 1});
  slice.loading = false;
  if (!read) {
    slice.error = read.error().within(fmt::format("qcow2 {} at offset {:#x}", what_, offset));
    drop(offset, slice_bytes_);
  }
  slice.loaded.wake_all();
  if (slice.error) {
    co_return std::unexpected(*slice.error);
  }
  co_return pin;
}

void SliceCache::make_room() {
  // From the least recently used on; what is pinned, loading or dirty stays, so the limit may be exceeded for
  // a while.
  for (auto it = by_use_.end(); slices_.size() >= max_slices_ && it != by_use_.begin();) {
    --it;
    Slice& slice = **it;
    if (slice.pins == 0 && !slice.dirty && !slice.loading) {
      it = by_use_.erase(it);
      slices_.erase(slice.offset);
      ++statistics_.evictions;
    }
  }
}

void SliceCache::drop(std::uint64_t offset, std::uint64_t bytes) {
  for (auto at = offset; at < offset + bytes; at += slice_bytes_) {
    const auto found = slices_.find(at);
    if (found == slices_.end()) {
      continue;
    }
    Slice& slice = *found->second;
    if (std::exchange(slice.dirty, false)) {
      std::erase(dirty_, &slice);
    }
    by_use_.erase(slice.position);
    slice.dropped = true;
    if (slice.pins != 0) {
      static_cast<void>(found->second.release());  // unpin() deletes it
    }
    slices_.erase(found);
  }
}

void SliceCache::unpin(Slice& slice) {
  if (--slice.pins == 0 && slice.dropped) {
    delete &slice;
  }
}

void SliceCache::mark_dirty(Slice& slice) {
  if (!slice.dirty && !slice.dropped) {
    slice.dirty = true;
    dirty_.push_back(&slice);
  }
}

std::vector<SliceCache::Dirty> SliceCache::take_dirty() {
  std::sort(dirty_.begin(), dirty_.end(),
            [](const Slice* a, const Slice* b) { return a->offset < b->offset; });
  std::vector<Dirty> taken;
  taken.reserve(dirty_.size());
  for (Slice* slice : dirty_) {
    slice->dirty = false;
    taken.push_back({Pin(*this, *slice), {slice->data.get(), slice->data.get() + slice_bytes_}});
  }
  dirty_.clear();
  return taken;
}

Task<Result<void>> write_slices(BlockDevice& file, std::vector<SliceCache::Dirty>& slices) {
  Result<void> result;
  std::vector<iovec> vec;
  for (std::size_t first = 0; first < slices.size();) {
    vec.clear();
    std::size_t end = first;
    std::uint64_t next = slices[first].pin.offset();
    while (end < slices.size() && end - first < kMaxJoined && slices[end].pin.offset() == next) {
      vec.push_back({slices[end].bytes.data(), slices[end].bytes.size()});
      next += slices[end].bytes.size();
      ++end;
    }
    auto written = co_await file.writev(slices[first].pin.offset(), vec);
    if (!written) {
      for (auto at = first; at < slices.size(); ++at) {
        slices[at].pin.mark_dirty();
      }
      co_return written;
    }
    first = end;
  }
  co_return result;
}

}  // namespace whistler::qcow2
