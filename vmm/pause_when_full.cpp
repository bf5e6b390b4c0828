#include "vmm/pause_when_full.hpp"

namespace whistler {
namespace {

bool is_full(const Result<void>& result) { return !result && result.error().code == ErrorCode::kNoSpace; }

}  // namespace

void SpaceWaiters::give_up() {
  given_up_ = true;
  queue_.wake_all();
}

bool SpaceWaiters::enter(const Error& error) {
  if (given_up_) {
    return false;
  }
  if (requests_++ == 0) {
    on_full_(error);
  }
  return true;
}

Task<bool> SpaceWaiters::wait() {
  if (!given_up_) {
    ++waiting_;
    co_await queue_.wait();
    --waiting_;
  }
  co_return !given_up_;
}

template <typename Request>
Task<Result<void>> PauseWhenFull::insist(Request request) {
  auto result = co_await request();
  if (!is_full(result) || !waiters_.enter(result.error())) {
    co_return result;
  }
  while (is_full(result)) {
    const bool again = co_await waiters_.wait();
    if (!again) {
      break;
    }
    result = co_await request();
  }
  waiters_.leave();
  co_return result;
}

Task<Result<void>> PauseWhenFull::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  return insist([=, this] { return below_->writev(offset, from, flags); });
}

Task<Result<void>> PauseWhenFull::flush() {
  return insist([this] { return below_->flush(); });
}

Task<Result<void>> PauseWhenFull::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  return insist([=, this] { return below_->write_zeroes(offset, bytes, flags); });
}

}  // namespace whistler
