#include "block/nbd/client.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/bytes.hpp"
#include "block/iovec.hpp"
#include "block/nbd/buffers.hpp"
#include "block/nbd/connection.hpp"
#include "block/uring/stoppable.hpp"

namespace whistler::nbd {

namespace {

using std::chrono::steady_clock;

/// The longest trim, zero or status request: they carry no data.
constexpr std::uint32_t kMaxRange = 1U << 30U;
/// How often a server that is not there is tried again.
constexpr std::chrono::milliseconds kRetryInterval{100};
/// How long a peer may be silent on the wire before the host gives the connection up.
constexpr int kPeerTimeoutSeconds = 30;

std::string_view verb(Command command) {
  switch (command) {
    case Command::kRead: return "read";
    case Command::kWrite: return "write";
    case Command::kFlush: return "flush";
    case Command::kTrim: return "discard";
    case Command::kWriteZeroes: return "write of zeroes";
    default: return "request";
  }
}

int host_errno(std::uint32_t error) {
  switch (error) {
    case kEperm: return EPERM;
    case kEnomem: return ENOMEM;
    case kEinval: return EINVAL;
    case kEnospc: return ENOSPC;
    case kEoverflow: return EOVERFLOW;
    case kEnotsup: return ENOTSUP;
    case kEshutdown: return ESHUTDOWN;
    default: return EIO;
  }
}

/// A host that vanished without a word must not hold requests up for ever.
void watch_peer(const UniqueFd& socket) {
  const int on = 1;
  const int idle = kPeerTimeoutSeconds / 3;
  const int interval = kPeerTimeoutSeconds / 6;
  const int count = 4;
  const unsigned limit = kPeerTimeoutSeconds * 1000U;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &limit, sizeof limit);
}

Task<void> pause(Ring& ring, std::chrono::nanoseconds duration, Stop* stop) {
  auto timer = ring.timeout(duration);
  (void)co_await stoppable(ring, timer, stop);
}

/// A socket connected to the server; tried until `deadline`, at least once.
Task<Result<UniqueFd>> reach(Ring& ring, std::vector<ResolvedAddress> resolved, Address address,
                             steady_clock::time_point deadline, Stop* stop) {
  for (;;) {
    auto socket = co_await connect_to(ring, resolved, address, stop);
    const auto left = deadline - steady_clock::now();
    if (socket || left <= std::chrono::nanoseconds(0) || (stop != nullptr && stop->asked())) {
      if (socket && !address.is_unix()) {
        watch_peer(*socket);
      }
      co_return socket;
    }
    co_await pause(ring, std::min<std::chrono::nanoseconds>(left, kRetryInterval), stop);
  }
}

std::string verified_host(const ClientOptions& options) {
  return options.tls_hostname.empty() ? options.address.host : options.tls_hostname;
}

}  // namespace

Client::Client(Ring& ring, ClientOptions options)
    : ring_(ring),
      options_(std::move(options)),
      given_up_(options_.stop, [this] { give_up(); }),
      let_go_(options_.let_go, [this] { give_up(); }) {}

Client::~Client() {
  if (connection_) {
    connection_->shut_down();
  }
}

bool Client::read_only() const { return options_.read_only || can(kReadOnly); }

std::string Client::name() const { return Target{options_.address, options_.export_name}.url(); }

Task<Result<std::unique_ptr<Client>>> Client::open(Ring& ring, ClientOptions options) {
  if (options.context.empty()) {
    options.context = kBaseAllocation;
  }
  std::unique_ptr<Client> client(new Client(ring, std::move(options)));
  auto ask = [address = client->options_.address] { return resolve(address); };
  auto resolved = co_await in_thread(ring, std::move(ask), client->given_up_.stop());
  if (!resolved) {
    co_return fail(ErrorCode::kCancelled,
                   fmt::format("address resolution for {} was given up", client->options_.address.text()));
  }
  if (!*resolved) {
    co_return std::unexpected(resolved->error());
  }
  client->resolved_ = std::move(**resolved);
  auto connected = co_await client->connect();
  if (!connected) {
    co_return std::unexpected(connected.error());
  }
  if (client->options_.context != kBaseAllocation && !client->info_.context_id) {
    auto connection = client->connection_;
    co_await connection->close();
    co_return fail(ErrorCode::kNotFound,
                   fmt::format("requested x-dirty-bitmap {} not found", client->options_.context));
  }
  co_return client;
}

void Client::give_up() {
  options_.reconnect_delay = {};
  if (connection_) {
    connection_->shut_down();
  }
}

Task<Result<void>> Client::connect() {
  const bool first = connection_ == nullptr;
  const auto deadline = first ? steady_clock::now() + options_.open_timeout : steady_clock::now();
  auto socket = co_await reach(ring_, resolved_, options_.address, deadline, given_up_.stop());
  if (!socket) {
    co_return std::unexpected(socket.error());
  }
  auto connection = std::make_shared<Connection>(ring_, std::move(*socket));
  const Stop::Listener hurry(given_up_.stop(), [&connection] { connection->shut_down(); });
  auto info = co_await connection->start(options_.tls, verified_host(options_), options_.export_name,
                                         options_.context);
  if (!info) {
    co_return std::unexpected(info.error());
  }
  if (!first && (info->bytes != size_ || (info->flags & kReadOnly) != (info_.flags & kReadOnly))) {
    co_return fail(ErrorCode::kInvalid, fmt::format("{}: the server has another disk now", name()));
  }
  if (info->bytes > static_cast<std::uint64_t>(INT64_MAX) - kMaxBytes) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("{}: export length of {} bytes is too large", name(), info->bytes));
  }
  info_ = std::move(*info);
  size_ = info_.bytes;
  connection_ = connection;
  Connection::read_replies(connection);
  co_return Result<void>{};
}

Task<Result<std::shared_ptr<Connection>>> Client::connection() {
  if (connection_->alive()) {
    co_return connection_;
  }
  if (options_.reconnect_delay.count() == 0) {
    co_return fail_errno(EIO, "the connection to the server is lost");
  }
  const auto guard = co_await connecting_.lock();
  const auto deadline = connection_->lost_at() + options_.reconnect_delay;
  for (;;) {
    if (connection_->alive()) {
      co_return connection_;
    }
    auto connected = co_await connect();
    if (connected) {
      continue;
    }
    const auto left = deadline - steady_clock::now();
    if (left <= std::chrono::nanoseconds(0) || options_.reconnect_delay.count() == 0) {
      co_return fail_errno(EIO, "the connection to the server is lost");
    }
    co_await pause(ring_, std::min<std::chrono::nanoseconds>(left, kRetryInterval), given_up_.stop());
  }
}

std::unexpected<Error> Client::io_error(const Error& error, Command command, std::uint64_t offset,
                                        std::uint64_t bytes) const {
  return std::unexpected(Error{error.code, error.sys_errno,
                               fmt::format("{}: {} of {} bytes at offset {}: {}", name(), verb(command),
                                           bytes, offset, error.message)});
}

Task<Result<void>> Client::request(Piece piece, Extent* extent) {
  for (;;) {
    auto connected = co_await connection();
    if (!connected) {
      co_return io_error(connected.error(), piece.command, piece.offset, piece.length);
    }
    const auto wire = *connected;
    auto reply = co_await wire->request({piece.command, piece.flags, piece.offset, piece.length, piece.data});
    if (reply.lost) {
      if (options_.reconnect_delay.count() != 0) {
        continue;
      }
      const auto lost = fail_errno(EIO, "the connection to the server is lost");
      co_return io_error(lost.error(), piece.command, piece.offset, piece.length);
    }
    if (reply.error != 0) {
      const int errnum = host_errno(reply.error);
      const auto refused = fail_errno(
          errnum, reply.message.empty() ? "the server reports" : "the server reports: " + reply.message);
      co_return io_error(refused.error(), piece.command, piece.offset, piece.length);
    }
    if (extent != nullptr) {
      *extent = reply.extent.value_or(Extent{piece.length, 0});
    }
    co_return Result<void>{};
  }
}

Task<Result<void>> Client::transfer(Command command, std::uint16_t flags, std::uint64_t offset, IoVec data) {
  const auto limit = static_cast<std::uint32_t>(
      align_down(info_.max_block == 0 ? kMaxBytes : std::min(info_.max_block, kMaxBytes), alignment()));
  const auto bytes = iovec_bytes(data);
  if (bytes <= limit) {
    auto result = co_await request({command, flags, offset, static_cast<std::uint32_t>(bytes), data});
    co_return result;
  }
  for (std::uint64_t done = 0; done < bytes; done += limit) {
    const IoSlice part(data, done, std::min<std::uint64_t>(limit, bytes - done));
    auto result = co_await request(
        {command, flags, offset + done, static_cast<std::uint32_t>(iovec_bytes(part.vec())), part.vec()});
    if (!result) {
      co_return result;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Client::repeat(Command command, std::uint16_t flags, std::uint64_t offset,
                                  std::uint64_t bytes) {
  while (bytes != 0) {
    const auto length = static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes, kMaxRange));
    auto result = co_await request({command, flags, offset, length});
    if (!result) {
      co_return result;
    }
    offset += length;
    bytes -= length;
  }
  co_return Result<void>{};
}

Task<Result<void>> Client::readv(std::uint64_t offset, IoVec to) {
  const auto bytes = iovec_bytes(to);
  const auto there = offset < size_ ? std::min(bytes, size_ - offset) : 0;
  if (there < bytes) {
    zero_iovec(to, there, bytes - there);
  }
  if (there == 0) {
    co_return Result<void>{};
  }
  const IoSlice part(to, 0, there);
  if (!aligned(offset, there)) {
    auto result = co_await read_unaligned(offset, part.vec());
    co_return result;
  }
  auto result = co_await transfer(Command::kRead, 0, offset, part.vec());
  co_return result;
}

Task<Result<void>> Client::read_unaligned(std::uint64_t offset, IoVec to) {
  const auto bytes = iovec_bytes(to);
  const auto start = align_down(offset, alignment());
  const auto end = std::min(align_up(offset + bytes, alignment()), size_);
  const Buffer buffer(end - start);
  const iovec whole{buffer.data(), end - start};
  auto result = co_await transfer(Command::kRead, 0, start, {&whole, 1});
  if (result) {
    copy_to_iovec(to, 0, {buffer.data() + (offset - start), bytes});
  }
  co_return result;
}

Result<void> Client::check_write(std::uint64_t offset, std::uint64_t bytes) const {
  if (read_only()) {
    return fail(ErrorCode::kPermission, fmt::format("{}: is open read-only", name()));
  }
  if (offset > size_ || bytes > size_ - offset) {
    return fail_errno(
        ENOSPC, fmt::format("{}: {} bytes at offset {} are beyond the end of the export ({} bytes)", name(),
                            bytes, offset, size_));
  }
  return {};
}

Task<Result<void>> Client::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  const auto bytes = iovec_bytes(from);
  if (auto ok = check_write(offset, bytes); !ok || bytes == 0) {
    co_return ok;
  }
  const std::uint16_t fua = flags.fua && can(kSendFua) ? kFlagFua : 0;
  Result<void> result;
  if (aligned(offset, bytes)) {
    result = co_await transfer(Command::kWrite, fua, offset, from);
  } else {
    result = co_await write_unaligned(offset, from, fua);
  }
  if (result && flags.fua && fua == 0) {
    result = co_await flush();
  }
  co_return result;
}

Task<Result<void>> Client::write_unaligned(std::uint64_t offset, IoVec from, std::uint16_t flags) {
  const auto bytes = iovec_bytes(from);
  const auto start = align_down(offset, alignment());
  const auto end = std::min(align_up(offset + bytes, alignment()), size_);
  RangeLock::Hold hold(unaligned_writes_, start, end, RangeLock::Mode::kExclusive);
  co_await hold;
  const Buffer buffer(end - start);
  const iovec whole{buffer.data(), end - start};
  auto result = co_await transfer(Command::kRead, 0, start, {&whole, 1});
  if (!result) {
    co_return result;
  }
  copy_from_iovec({buffer.data() + (offset - start), bytes}, from, 0);
  result = co_await transfer(Command::kWrite, flags, start, {&whole, 1});
  co_return result;
}

Task<Result<void>> Client::flush() {
  if (!can(kSendFlush)) {
    co_return Result<void>{};
  }
  auto result = co_await request({Command::kFlush});
  co_return result;
}

Task<Result<void>> Client::discard(std::uint64_t offset, std::uint64_t bytes) {
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  const auto start = align_up(offset, alignment());
  const auto end = align_down(offset + bytes, alignment());
  if (!can(kSendTrim) || start >= end) {
    co_return Result<void>{};
  }
  auto result = co_await repeat(Command::kTrim, 0, start, end - start);
  co_return result;
}

Task<Result<void>> Client::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  if (auto ok = check_write(offset, bytes); !ok) {
    co_return ok;
  }
  if (can(kSendWriteZeroes) && aligned(offset, bytes)) {
    std::uint16_t how = flags.may_unmap ? 0 : kFlagNoHole;
    if (flags.fua && can(kSendFua)) {
      how |= kFlagFua;
    }
    auto result = co_await repeat(Command::kWriteZeroes, how, offset, bytes);
    if (result && flags.fua && !can(kSendFua)) {
      result = co_await flush();
    }
    co_return result;
  }
  static std::array<std::uint8_t, 256 * 1024> zeroes{};
  while (bytes != 0) {
    const iovec piece{zeroes.data(), std::min<std::uint64_t>(bytes, zeroes.size())};
    auto result = co_await writev(offset, {&piece, 1}, {.fua = flags.fua});
    if (!result) {
      co_return result;
    }
    offset += piece.iov_len;
    bytes -= piece.iov_len;
  }
  co_return Result<void>{};
}

Task<Result<BlockStatus>> Client::block_status(std::uint64_t offset, std::uint64_t bytes) {
  if (offset >= size_) {
    co_return BlockStatus{bytes, false, true};
  }
  bytes = std::min(bytes, size_ - offset);
  const auto start = align_down(offset, alignment());
  const auto end = std::min({align_up(offset + bytes, alignment()), size_, start + kMaxRange});
  if (!info_.context_id) {
    co_return BlockStatus{bytes, true, false};
  }
  Extent extent;
  auto result = co_await request(
      {Command::kBlockStatus, kFlagReqOne, start, static_cast<std::uint32_t>(end - start)}, &extent);
  if (!result) {
    co_return std::unexpected(result.error());
  }
  std::uint32_t flags = extent.flags;
  if (options_.context == kAllocationDepth) {
    flags = std::min(flags, 2U);
  }
  // A server may tell of more than was asked; at least one byte is known.
  const std::uint64_t known = std::min<std::uint64_t>(extent.length, end - start);
  const bool whole = known > offset - start;
  co_return BlockStatus{.bytes = whole ? std::min(known - (offset - start), bytes) : bytes,
                        .data = !whole || (flags & kStateHole) == 0,
                        .zero = whole && (flags & kStateZero) != 0};
}

Task<Result<void>> Client::resize(std::uint64_t bytes) {
  if (bytes > size_) {
    co_return fail(ErrorCode::kUnsupported, "Cannot grow NBD nodes");
  }
  co_return Result<void>{};
}

Task<Result<void>> Client::close() {
  Result<void> result;
  if (!read_only() && connection_->alive()) {
    result = co_await flush();
  }
  auto connection = connection_;
  co_await connection->close();
  co_return result;
}

Task<Result<std::vector<ExportInfo>>> list_exports(Ring& ring, ClientOptions options) {
  auto resolved = resolve(options.address);
  if (!resolved) {
    co_return std::unexpected(resolved.error());
  }
  auto socket =
      co_await reach(ring, std::move(*resolved), options.address, steady_clock::now(), options.stop);
  if (!socket) {
    co_return std::unexpected(socket.error());
  }
  Connection connection(ring, std::move(*socket));
  auto exports = co_await connection.list(options.tls, verified_host(options));
  co_return exports;
}

}  // namespace whistler::nbd
