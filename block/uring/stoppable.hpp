// Waiting for the host no longer than somebody wants: operations that can be given up, and calls that may
// block, on a thread of their own.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <type_traits>

#include "base/stop.hpp"
#include "base/unique_fd.hpp"
#include "block/uring/ring.hpp"

namespace whistler {

/// What a socket operation, poll or timeout gives; -ECANCELED if `stop` (may be null) is asked for before.
[[nodiscard]] inline Task<std::int32_t> stoppable(Ring& ring, Ring::Operation operation, Stop* stop) {
  if (stop != nullptr && stop->asked()) {
    co_return -ECANCELED;
  }
  const Stop::Listener listener(stop, [&] { ring.cancel(operation); });
  const auto result = co_await operation;
  co_return result;
}

/// What `call` returns, which runs on a thread of its own; nothing if `stop` is asked for before: the thread
/// is left to itself then, with whatever `call` has captured. Without a stop there is nobody who must not be
/// held up, and it runs here.
template <typename Call>
[[nodiscard]] Task<std::optional<std::invoke_result_t<Call>>> in_thread(Ring& ring, Call call, Stop* stop) {
  struct Shared {
    explicit Shared(Call what) : call(std::move(what)) {}
    Call call;
    UniqueFd ended{::eventfd(0, EFD_CLOEXEC)};
    std::atomic<bool> there = false;
    std::optional<std::invoke_result_t<Call>> result;
  };
  auto shared = std::make_shared<Shared>(std::move(call));
  bool started = false;
  if (stop != nullptr && shared->ended) {
    try {
      std::thread([shared] {
        shared->result.emplace(shared->call());
        shared->there = true;
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(shared->ended.get(), &one, sizeof one);
      }).detach();
      started = true;
    } catch (const std::system_error&) {  // no thread is to be had
    }
  }
  if (!started) {
    shared->result.emplace(shared->call());
    co_return std::move(shared->result);
  }
  auto ended = ring.poll(shared->ended.get(), POLLIN);
  static_cast<void>(co_await stoppable(ring, ended, stop));
  if (!shared->there) {
    co_return std::nullopt;
  }
  co_return std::move(shared->result);
}

}  // namespace whistler
