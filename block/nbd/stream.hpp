// A connection as a stream of bytes, with or without TLS in between.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "base/unique_fd.hpp"
#include "block/block_device.hpp"
#include "block/uring/ring.hpp"

namespace whistler::nbd {

/// One may send while another receives.
class Stream {
 public:
  virtual ~Stream() = default;
  /// At least one byte and at most `bytes`, all of them if `all` (as far as the stream goes); 0 at its end.
  [[nodiscard]] virtual Task<Result<std::size_t>> receive(void* to, std::size_t bytes, bool all) = 0;
  /// Sends everything. The memory must stay valid until the task has ended.
  [[nodiscard]] virtual Task<Result<void>> send(IoVec from) = 0;
  /// Ends the connection both ways: whoever waits for it goes on soon, with an error or the end.
  virtual void shut_down() = 0;
  /// Says goodbye where the protocol has a word for it; the next thing is the end.
  virtual void finish() {}
};

class SocketStream final : public Stream {
 public:
  SocketStream(Ring& ring, UniqueFd socket) : ring_(ring), socket_(std::move(socket)) {}
  [[nodiscard]] Task<Result<std::size_t>> receive(void* to, std::size_t bytes, bool all) override;
  [[nodiscard]] Task<Result<void>> send(IoVec from) override;
  void shut_down() override;
  /// For a TLS session on it.
  [[nodiscard]] int descriptor() const { return socket_.get(); }

 private:
  Ring& ring_;
  UniqueFd socket_;
};

/// What comes in, read ahead so that many short messages cost one operation.
class Input {
 public:
  explicit Input(Stream& stream) : stream_(&stream) {}
  /// Fills `to`. kIo "Unexpected end-of-file before all bytes were read" if the stream ends first.
  [[nodiscard]] Task<Result<void>> read(void* to, std::size_t bytes);
  /// The same without waiting; false, nothing taken, if not all is there yet.
  [[nodiscard]] bool take(void* to, std::size_t bytes);
  /// Reads and forgets.
  [[nodiscard]] Task<Result<void>> skip(std::uint64_t bytes);
  /// Whether the stream has ended and nothing is left; waits for a byte otherwise.
  [[nodiscard]] Task<Result<bool>> at_end();
  /// Whether something was read ahead: what came before a TLS handshake must not be taken for what came
  /// after.
  [[nodiscard]] bool empty() const { return first_ == last_; }
  void use(Stream& stream) { stream_ = &stream; }

 private:
  [[nodiscard]] Task<Result<bool>> fill();

  static constexpr std::size_t kBuffer = 64 * 1024;
  Stream* stream_;
  std::vector<std::uint8_t> buffer_ = std::vector<std::uint8_t>(kBuffer);
  std::size_t first_ = 0;
  std::size_t last_ = 0;
};

/// Sends whole messages one after the other; those that queue up while one is under way go out together.
class Output {
 public:
  explicit Output(Stream& stream) : stream_(&stream) {}
  /// The pieces and their memory must stay valid until the task has ended. After a failure every further
  /// send fails.
  [[nodiscard]] Task<Result<void>> send(IoVec message);
  [[nodiscard]] Task<Result<void>> send(std::string message);
  void use(Stream& stream) { stream_ = &stream; }

 private:
  struct Waiting {
    IoVec message;
    bool sent = false;
  };

  Stream* stream_;
  std::vector<Waiting*> queue_;
  WaitQueue sent_;
  bool sending_ = false;
  Result<void> state_;
};

}  // namespace whistler::nbd
