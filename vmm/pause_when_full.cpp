#include "vmm/pause_when_full.hpp"

namespace whistler {

void SpaceWaiters::give_up() {
  given_up_ = true;
  queue_.wake_all();
}

Task<bool> SpaceWaiters::wait(const Error& error) {
  if (given_up_) {
    co_return false;
  }
  if (waiting_++ == 0) {
    on_full_(error);
  }
  co_await queue_.wait();
  --waiting_;
  co_return !given_up_;
}

Task<bool> PauseWhenFull::try_again(const Result<void>& result) {
  if (result || result.error().code != ErrorCode::kNoSpace) {
    co_return false;
  }
  const bool again = co_await waiters_.wait(result.error());
  co_return again;
}

Task<Result<void>> PauseWhenFull::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  while (true) {
    const auto result = co_await below_->writev(offset, from, flags);
    const bool again = co_await try_again(result);
    if (!again) {
      co_return result;
    }
  }
}

Task<Result<void>> PauseWhenFull::flush() {
  while (true) {
    const auto result = co_await below_->flush();
    const bool again = co_await try_again(result);
    if (!again) {
      co_return result;
    }
  }
}

Task<Result<void>> PauseWhenFull::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  while (true) {
    const auto result = co_await below_->write_zeroes(offset, bytes, flags);
    const bool again = co_await try_again(result);
    if (!again) {
      co_return result;
    }
  }
}

}  // namespace whistler
