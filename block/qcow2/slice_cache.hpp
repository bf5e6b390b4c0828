// Mapping tables in memory, in slices of at most 4 KiB: loaded on first use, kept by last use, written back
// in order by their owner.
//
// The cache itself writes nothing. Its owner takes copies of all dirty slices at one moment (take_dirty),
// writes them when what they refer to is durable, and gives back those it could not write (mark_dirty).
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/async.hpp"
#include "block/block_device.hpp"

namespace whistler::qcow2 {

/// Hits and loads since the image was opened.
struct CacheStatistics {
  std::uint64_t hits = 0;
  std::uint64_t loads = 0;
  std::uint64_t evictions = 0;
};

class SliceCache {
 private:
  struct Slice {
    std::uint64_t offset = 0;
    std::unique_ptr<std::uint8_t[]> data;
    unsigned pins = 0;
    bool loading = false;
    bool dirty = false;
    bool dropped = false;  ///< no longer in the table; freed with its last pin
    std::optional<Error> error;
    WaitQueue loaded;
    std::list<Slice*>::iterator position;
  };

 public:
  /// Keeps a slice in memory while it lives.
  class Pin {
   public:
    Pin() = default;
    Pin(Pin&& other) noexcept : cache_(other.cache_), slice_(std::exchange(other.slice_, nullptr)) {}
    Pin& operator=(Pin&& other) noexcept {
      std::swap(cache_, other.cache_);
      std::swap(slice_, other.slice_);
      return *this;
    }
    ~Pin() {
      if (slice_ != nullptr) {
        cache_->unpin(*slice_);
      }
    }
    explicit operator bool() const { return slice_ != nullptr; }
    [[nodiscard]] std::uint8_t* data() const { return slice_->data.get(); }
    [[nodiscard]] std::uint64_t offset() const { return slice_->offset; }
    void mark_dirty() { cache_->mark_dirty(*slice_); }

   private:
    friend class SliceCache;
    Pin(SliceCache& cache, Slice& slice) : cache_(&cache), slice_(&slice) { ++slice.pins; }
    SliceCache* cache_ = nullptr;
    Slice* slice_ = nullptr;
  };

  /// A dirty slice as it was when taken; it stays pinned, so nobody loads the old content meanwhile.
  struct Dirty {
    Pin pin;
    std::vector<std::uint8_t> bytes;
  };

  /// `file` must outlive the cache. `what` names the tables in messages ("L2 table"). `limit`: bytes to stay
  /// under; `dirty_limit`: bytes not yet written that are too many.
  SliceCache(BlockDevice& file, std::string what, std::uint32_t slice_bytes, std::uint64_t limit,
             std::uint64_t dirty_limit);
  SliceCache(const SliceCache&) = delete;
  SliceCache& operator=(const SliceCache&) = delete;

  [[nodiscard]] std::uint32_t slice_bytes() const { return slice_bytes_; }
  /// The slice at `offset` (a multiple of slice_bytes) if it is in memory.
  [[nodiscard]] Pin find(std::uint64_t offset);
  /// The slice at `offset`, loaded if need be. Several who ask at once share one read.
  [[nodiscard]] Task<Result<Pin>> get(std::uint64_t offset);
  /// Forgets all slices of [offset, offset + bytes), written or not: the table is no more.
  void drop(std::uint64_t offset, std::uint64_t bytes);

  [[nodiscard]] bool has_dirty() const { return !dirty_.empty(); }
  /// Time to write back, before dirty slices crowd out the rest.
  [[nodiscard]] bool crowded() const { return dirty_.size() >= max_dirty_; }
  /// Copies of all dirty slices in order of offset; they count as clean from now on.
  [[nodiscard]] std::vector<Dirty> take_dirty();
  [[nodiscard]] const CacheStatistics& statistics() const { return statistics_; }

 private:
  void unpin(Slice& slice);
  void mark_dirty(Slice& slice);
  void make_room();

  BlockDevice& file_;
  std::string what_;
  std::uint32_t slice_bytes_;
  std::size_t max_slices_;
  std::size_t max_dirty_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Slice>> slices_;
  std::list<Slice*> by_use_;  ///< most recently used first
  std::vector<Slice*> dirty_;
  CacheStatistics statistics_;
};

/// Writes the copies, joining neighbours. On failure those not written are dirty again.
[[nodiscard]] Task<Result<void>> write_slices(BlockDevice& file, std::vector<SliceCache::Dirty>& slices);

}  // namespace whistler::qcow2
