// A disk on an NBD server.
//
// A server is not trusted: what it sends is checked against what was asked, and a server that breaks the
// protocol or goes away ends the connection. Every request that is or comes under way then fails with EIO,
// or, with a reconnect delay, waits that long for the server to come back and is sent again.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/stop.hpp"
#include "block/block_device.hpp"
#include "block/nbd/address.hpp"
#include "block/nbd/client_handshake.hpp"
#include "block/range_lock.hpp"

namespace whistler::nbd {

struct ClientOptions {
  Address address = {};
  std::string export_name = {};
  std::shared_ptr<const TlsCredentials> tls = {};
  /// Whom the server's certificate must name; empty: the host of `address`.
  std::string tls_hostname = {};
  bool read_only = false;
  /// How long requests wait for a lost server to come back; 0: they fail at once.
  std::chrono::seconds reconnect_delay{0};
  /// How long open() tries to reach a server that is not there yet.
  std::chrono::seconds open_timeout{0};
  /// What block_status() tells, in place of base:allocation; for looking at bitmaps.
  std::string context = {};
  /// When one of them is asked for, everything that waits for the server fails. Each may be null, or gone
  /// before the client: `stop` when it is open, `let_go` when nobody will need that any more.
  Stop* stop = nullptr;
  Stop* let_go = nullptr;
};

class Connection;

/// A file's manners: a read beyond the end gives zeroes.
class Client final : public BlockDevice {
 public:
  [[nodiscard]] static Task<Result<std::unique_ptr<Client>>> open(Ring& ring, ClientOptions options);
  ~Client() override;
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  [[nodiscard]] std::uint64_t size() const override { return size_; }
  [[nodiscard]] bool read_only() const override;
  /// The URL.
  [[nodiscard]] std::string name() const override;
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override;
  /// Only to what it is already, or less, which changes nothing.
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> close() override;

  /// What the server said when the disk was opened.
  [[nodiscard]] const ExportInfo& info() const { return info_; }

 private:
  struct Piece {
    Command command;
    std::uint16_t flags = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    IoVec data = {};  ///< to read into, or to write
  };

  Client(Ring& ring, ClientOptions options);
  [[nodiscard]] Task<Result<void>> connect();
  void give_up();
  /// A connection in working order, after waiting for one if that is allowed.
  [[nodiscard]] Task<Result<std::shared_ptr<Connection>>> connection();
  /// Sends one request of at most what the server takes; `extent` takes the answer of a status request.
  [[nodiscard]] Task<Result<void>> request(Piece piece, Extent* extent = nullptr);
  /// Cuts into such requests.
  [[nodiscard]] Task<Result<void>> transfer(Command command, std::uint16_t flags, std::uint64_t offset,
                                            IoVec data);
  [[nodiscard]] Task<Result<void>> repeat(Command command, std::uint16_t flags, std::uint64_t offset,
                                          std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> read_unaligned(std::uint64_t offset, IoVec to);
  [[nodiscard]] Task<Result<void>> write_unaligned(std::uint64_t offset, IoVec from, std::uint16_t flags);
  [[nodiscard]] Result<void> check_write(std::uint64_t offset, std::uint64_t bytes) const;
  [[nodiscard]] bool can(std::uint16_t flag) const { return (info_.flags & flag) != 0; }
  [[nodiscard]] std::uint32_t alignment() const { return info_.min_block > 1 ? info_.min_block : 1; }
  [[nodiscard]] bool aligned(std::uint64_t offset, std::uint64_t bytes) const {
    return ((offset | bytes) & (alignment() - 1)) == 0;
  }
  [[nodiscard]] std::unexpected<Error> io_error(const Error& error, Command command, std::uint64_t offset,
                                                std::uint64_t bytes) const;

  Ring& ring_;
  ClientOptions options_;
  std::vector<ResolvedAddress> resolved_;
  ExportInfo info_;
  std::uint64_t size_ = 0;
  std::shared_ptr<Connection> connection_;
  AsyncMutex connecting_;
  RangeLock unaligned_writes_;
  Stop::Listener given_up_, let_go_;
};

/// What `whistler nbd --list` asks.
[[nodiscard]] Task<Result<std::vector<ExportInfo>>> list_exports(Ring& ring, ClientOptions options);

}  // namespace whistler::nbd
