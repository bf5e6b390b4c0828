// Memory for the frames of coroutines. A request makes a few of them, of the same few sizes every time, and
// frees them soon after: kept by size for the next, they cost a few instructions in place of a heap call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>

namespace whistler::frame_memory {

/// Sizes are rounded up to a multiple of this.
inline constexpr std::size_t kStep = 128;
/// Larger frames than kStep * kClasses come from the heap.
inline constexpr std::size_t kClasses = 16;
/// Unused frames of one size that a thread keeps.
inline constexpr std::uint32_t kMostKept = 64;

/// With the address sanitizer every frame is a heap block of its own, so that it sees who uses a freed one.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kPooled = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool kPooled = false;
#else
inline constexpr bool kPooled = true;
#endif
#else
inline constexpr bool kPooled = true;
#endif

struct Unused {
  Unused* next;
};

struct Store {
  std::array<Unused*, kClasses> first{};
  std::array<std::uint32_t, kClasses> kept{};
  bool closed = false;  ///< the thread is ending: nothing is kept any more
};

/// Each thread has its own; a frame may be freed on another thread than it was made on.
inline constinit thread_local Store store;

/// Frees what a thread has kept when it ends.
struct Sweeper {
  Sweeper() = default;
  Sweeper(const Sweeper&) = delete;
  Sweeper& operator=(const Sweeper&) = delete;
  ~Sweeper() {
    store.closed = true;
    for (auto*& list : store.first) {
      while (list != nullptr) {
        void* const block = list;
        list = list->next;
        ::operator delete(block);
      }
    }
  }
  void touch() {}
};
inline thread_local Sweeper sweeper;

[[nodiscard]] inline void* take(std::size_t bytes) {
  const auto place = (bytes - 1) / kStep;
  if (!kPooled || place >= kClasses) {
    return ::operator new(bytes);
  }
  if (Unused* const found = store.first[place]; found != nullptr) {
    store.first[place] = found->next;
    --store.kept[place];
    return found;
  }
  return ::operator new((place + 1) * kStep);
}

inline void give(void* block, std::size_t bytes) noexcept {
  const auto place = (bytes - 1) / kStep;
  if (!kPooled || place >= kClasses || store.closed || store.kept[place] == kMostKept) {
    ::operator delete(block);
    return;
  }
  if (store.kept[place]++ == 0) {
    sweeper.touch();  // made when first named, so that it ends with the thread
  }
  auto* const unused = static_cast<Unused*>(block);
  unused->next = store.first[place];
  store.first[place] = unused;
}

/// What a promise inherits, for the frames of its coroutines to come from here.
struct Pooled {
  static void* operator new(std::size_t bytes) { return take(bytes); }
  static void operator delete(void* block, std::size_t bytes) noexcept { give(block, bytes); }
};

}  // namespace whistler::frame_memory
