#include "block/nbd/stream.hpp"

#include <fmt/format.h>
#include <limits.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "block/iovec.hpp"

namespace whistler::nbd {

Task<Result<std::size_t>> SocketStream::receive(void* to, std::size_t bytes, bool all) {
  auto* const start = static_cast<std::uint8_t*>(to);
  std::size_t done = 0;
  while (done < bytes) {
    const auto result = co_await ring_.recv(socket_.get(), start + done, bytes - done, all ? MSG_WAITALL : 0);
    if (result == -EINTR || result == -EAGAIN) {
      continue;
    }
    if (result < 0) {
      co_return fail_errno(-result, "Unable to read from socket");
    }
    if (result == 0) {
      break;
    }
    done += static_cast<std::size_t>(result);
    if (!all) {
      break;
    }
  }
  co_return done;
}

Task<Result<void>> SocketStream::send(IoVec from) {
  IoSlice rest(from, 0, iovec_bytes(from));
  while (!rest.vec().empty()) {
    const auto vec = rest.vec();
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(vec.data());
    message.msg_iovlen = std::min<std::size_t>(vec.size(), IOV_MAX);
    const auto result = co_await ring_.sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (result == -EINTR || result == -EAGAIN) {
      continue;
    }
    if (result < 0) {
      co_return fail_errno(-result, "Unable to write to socket");
    }
    rest.advance(static_cast<std::uint64_t>(result));
  }
  co_return Result<void>{};
}

void SocketStream::shut_down() {
  if (socket_) {
    ::shutdown(socket_.get(), SHUT_RDWR);
  }
}

bool Input::take(void* to, std::size_t bytes) {
  if (last_ - first_ < bytes) {
    return false;
  }
  std::memcpy(to, buffer_.data() + first_, bytes);
  first_ += bytes;
  return true;
}

Task<Result<bool>> Input::fill() {
  if (first_ == last_) {
    first_ = last_ = 0;
  } else if (first_ != 0) {
    std::memmove(buffer_.data(), buffer_.data() + first_, last_ - first_);
    last_ -= first_;
    first_ = 0;
  }
  auto got = co_await stream_->receive(buffer_.data() + last_, buffer_.size() - last_, false);
  if (!got) {
    co_return std::unexpected(got.error());
  }
  last_ += *got;
  co_return *got != 0;
}

Task<Result<void>> Input::read(void* to, std::size_t bytes) {
  auto* next = static_cast<std::uint8_t*>(to);
  while (bytes != 0) {
    const auto ready = std::min(bytes, last_ - first_);
    if (ready != 0) {
      std::memcpy(next, buffer_.data() + first_, ready);
      first_ += ready;
      next += ready;
      bytes -= ready;
      continue;
    }
    bool more = true;
    if (bytes >= kBuffer / 2) {
      auto got = co_await stream_->receive(next, bytes, true);
      if (!got) {
        co_return std::unexpected(got.error());
      }
      more = *got == bytes;
      bytes -= *got;
    } else {
      auto filled = co_await fill();
      if (!filled) {
        co_return std::unexpected(filled.error());
      }
      more = *filled;
    }
    if (!more) {
      co_return fail(ErrorCode::kIo, "Unexpected end-of-file before all bytes were read");
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Input::skip(std::uint64_t bytes) {
  while (bytes != 0) {
    const auto ready = std::min<std::uint64_t>(bytes, last_ - first_);
    first_ += ready;
    bytes -= ready;
    if (bytes != 0) {
      auto filled = co_await fill();
      if (!filled) {
        co_return std::unexpected(filled.error());
      }
      if (!*filled) {
        co_return fail(ErrorCode::kIo, "Unexpected end-of-file before all bytes were read");
      }
    }
  }
  co_return Result<void>{};
}

Task<Result<bool>> Input::at_end() {
  if (!empty()) {
    co_return false;
  }
  auto filled = co_await fill();
  if (!filled) {
    co_return std::unexpected(filled.error());
  }
  co_return !*filled;
}

Task<Result<void>> Output::send(IoVec message) {
  Waiting own{message};
  queue_.push_back(&own);
  while (sending_ && !own.sent && state_) {
    co_await sent_.wait();
  }
  if (!own.sent && state_) {
    sending_ = true;
    std::vector<iovec> pieces;
    const auto batch = std::exchange(queue_, {});
    for (const auto* waiting : batch) {
      pieces.insert(pieces.end(), waiting->message.begin(), waiting->message.end());
    }
    auto result = co_await stream_->send(pieces);
    for (auto* waiting : batch) {
      waiting->sent = true;
    }
    sending_ = false;
    if (!result) {
      state_ = result;
    }
    auto answer = state_;
    sent_.wake_all();
    co_return answer;
  }
  std::erase(queue_, &own);
  co_return state_;
}

Task<Result<void>> Output::send(std::string message) {
  const iovec piece{message.data(), message.size()};
  auto result = co_await send(IoVec{&piece, 1});
  co_return result;
}

}  // namespace whistler::nbd
