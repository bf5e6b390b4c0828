// A client's connection: requests out, replies in, matched by their cookies.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <optional>

#include "base/async.hpp"
#include "block/nbd/client_handshake.hpp"
#include "block/nbd/stream.hpp"

namespace whistler::nbd {

/// Kept alive by its reader: it may outlive the client for the moment it takes to end.
class Connection {
 public:
  static constexpr std::size_t kMaxRequests = 64;
  /// A server that takes longer for a handshake is given up.
  static constexpr std::chrono::seconds kHandshakeTime{30};

  Connection(Ring& ring, UniqueFd socket)
      : ring_(ring), socket_(ring, std::move(socket)), in_(socket_), out_(socket_) {}

  /// Shakes hands for `name`.
  [[nodiscard]] Task<Result<ExportInfo>> start(std::shared_ptr<const TlsCredentials> credentials,
                                               std::string host, std::string name, std::string context);
  [[nodiscard]] Task<Result<std::vector<ExportInfo>>> list(std::shared_ptr<const TlsCredentials> credentials,
                                                           std::string host);
  /// Reads replies from now on, until the end of the connection.
  static void read_replies(std::shared_ptr<Connection> self);

  struct Request {
    Command command = Command::kRead;
    std::uint16_t flags = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    IoVec data = {};
  };
  struct Reply {
    std::uint32_t error = 0;  ///< NBD's number; 0: it worked
    std::string message = {};
    std::optional<Extent> extent = {};
    bool lost = false;  ///< the connection ended before the reply came
  };
  [[nodiscard]] Task<Reply> request(Request request);
  /// Says goodbye and waits for the end.
  [[nodiscard]] Task<void> close();
  void shut_down();
  [[nodiscard]] bool alive() const { return alive_; }
  [[nodiscard]] std::chrono::steady_clock::time_point lost_at() const { return lost_at_; }

 private:
  struct Slot {
    bool used = false;
    bool done = false;
    std::uint32_t generation = 0;
    Request request = {};
    std::uint64_t received = 0;
    Reply reply = {};
    std::coroutine_handle<> waiter = {};
  };
  struct Arrival {
    Slot& slot;
    auto await_ready() const noexcept { return slot.done; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { slot.waiter = waiter; }
    void await_resume() const noexcept {}
  };

  [[nodiscard]] Task<void> limit_handshake();
  [[nodiscard]] Task<void> end_handshake();
  static Task<void> reader(std::shared_ptr<Connection> self);
  [[nodiscard]] Task<Result<void>> read_reply();
  [[nodiscard]] Task<Result<bool>> read_chunk(Slot& slot, std::uint16_t flags, std::uint16_t type,
                                              std::uint32_t length);
  [[nodiscard]] Task<Result<void>> read_data(Slot& slot, std::uint64_t at, std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> read_error(Slot& slot, std::uint16_t type, std::uint32_t length);
  [[nodiscard]] Task<Result<void>> read_extents(Slot& slot, std::uint32_t length);
  [[nodiscard]] Slot* find(std::uint64_t cookie);
  [[nodiscard]] Slot* free_slot();
  void finish(Slot& slot);
  void lose();

  Ring& ring_;
  SocketStream socket_;
  std::unique_ptr<TlsStream> tls_;
  Input in_;
  Output out_;
  bool structured_ = false;
  std::optional<std::uint32_t> context_id_;
  std::array<Slot, kMaxRequests> slots_{};
  WaitQueue slot_free_;
  bool alive_ = false;
  bool reading_ = false;
  std::chrono::steady_clock::time_point lost_at_{};
  WaitQueue ended_;
  Ring::Operation* timer_ = nullptr;
  Gate timers_;
  bool timed_out_ = false;
};

}  // namespace whistler::nbd
