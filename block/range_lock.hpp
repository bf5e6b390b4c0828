// Locks on ranges of a disk, so that requests wait for each other only where they overlap.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>

namespace whistler {

/// Shared and exclusive locks on half-open ranges, granted in order of arrival: a later request never
/// overtakes an earlier conflicting one. A lock is a node in the frame of its coroutine; nothing is
/// allocated. Not thread-safe.
class RangeLock {
 public:
  enum class Mode : std::uint8_t { kShared, kExclusive };

  RangeLock() = default;
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;

  /// `RangeLock::Hold hold(lock, begin, end, mode); co_await hold;` Held until destroyed or released.
  class Hold {
   public:
    Hold(RangeLock& lock, std::uint64_t begin, std::uint64_t end, Mode mode)
        : lock_(lock), begin_(begin), end_(end), mode_(mode) {}
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() { release(); }

    [[nodiscard]] bool await_ready() noexcept {
      lock_.append(*this);
      waiting_ = lock_.blocked(*this);
      lock_.waiters_ += waiting_ ? 1 : 0;
      return !waiting_;
    }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { waiter_ = waiter; }
    void await_resume() const noexcept {}

    /// Lets go; the same object can be awaited again, in `mode`.
    void release() {
      if (listed_) {
        lock_.remove(*this);
      }
    }
    /// Only while released.
    void set_mode(Mode mode) { mode_ = mode; }

   private:
    friend class RangeLock;
    RangeLock& lock_;
    std::uint64_t begin_;
    std::uint64_t end_;
    Mode mode_;
    bool listed_ = false;
    bool waiting_ = false;
    std::coroutine_handle<> waiter_;
    Hold* previous_ = nullptr;
    Hold* next_ = nullptr;
  };

  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  /// Whether at most one range is held or waited for.
  [[nodiscard]] bool at_most_one() const { return first_ == last_; }

 private:
  void append(Hold& hold) {
    hold.previous_ = last_;
    hold.next_ = nullptr;
    (last_ != nullptr ? last_->next_ : first_) = &hold;
    last_ = &hold;
    hold.listed_ = true;
    exclusive_ += hold.mode_ == Mode::kExclusive ? 1 : 0;
  }

  void remove(Hold& hold) {
    (hold.previous_ != nullptr ? hold.previous_->next_ : first_) = hold.next_;
    (hold.next_ != nullptr ? hold.next_->previous_ : last_) = hold.previous_;
    hold.listed_ = false;
    waiters_ -= hold.waiting_ ? 1 : 0;
    hold.waiting_ = false;
    exclusive_ -= hold.mode_ == Mode::kExclusive ? 1 : 0;
    if (waiters_ != 0) {
      wake();
    }
  }

  static bool conflict(const Hold& a, const Hold& b) {
    return a.begin_ < b.end_ && b.begin_ < a.end_ &&
           (a.mode_ == Mode::kExclusive || b.mode_ == Mode::kExclusive);
  }

  /// Whether a request that came before `hold` stands in its way.
  [[nodiscard]] bool blocked(const Hold& hold) const {
    if (exclusive_ == 0) {  // shared ones only, as nearly always
      return false;
    }
    for (const Hold* earlier = hold.previous_; earlier != nullptr; earlier = earlier->previous_) {
      if (conflict(*earlier, hold)) {
        return true;
      }
    }
    return false;
  }

  void wake() {
    // A resumed coroutine may change the list in any way, so the search starts over after each. `waking_`
    // leaves that to the outermost call: the stack does not grow with the number of waiters.
    if (waking_) {
      again_ = true;
      return;
    }
    waking_ = true;
    do {
      again_ = false;
      for (Hold* hold = first_; hold != nullptr; hold = hold->next_) {
        if (hold->waiting_ && !blocked(*hold)) {
          hold->waiting_ = false;
          --waiters_;
          again_ = true;
          hold->waiter_.resume();
          break;
        }
      }
    } while (again_);
    waking_ = false;
  }

  Hold* first_ = nullptr;
  Hold* last_ = nullptr;
  std::size_t exclusive_ = 0;  ///< of those listed
  std::size_t waiters_ = 0;    ///< of those listed
  bool waking_ = false;
  bool again_ = false;
};

}  // namespace whistler
