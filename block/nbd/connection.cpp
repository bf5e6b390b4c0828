#include "block/nbd/connection.hpp"

#include <fmt/format.h>

#include <cerrno>

#include "block/iovec.hpp"

namespace whistler::nbd {

namespace {

std::unexpected<Error> protocol_error(std::string message) {
  return fail(ErrorCode::kInvalid, std::move(message));
}

}  // namespace

Task<void> Connection::limit_handshake() {
  const auto pass = timers_.enter();
  auto timer = ring_.timeout(kHandshakeTime);
  timer_ = &timer;
  const auto result = co_await timer;
  timer_ = nullptr;
  if (result == -ETIME) {
    timed_out_ = true;
    shut_down();
  }
}

Task<void> Connection::end_handshake() {
  if (timer_ != nullptr) {
    ring_.cancel(*timer_);
  }
  co_await timers_.drain();
}

Task<Result<ExportInfo>> Connection::start(std::shared_ptr<const TlsCredentials> credentials,
                                           std::string host, std::string name, std::string context) {
  spawn(limit_handshake());
  ClientHandshake handshake(ring_, socket_, in_, out_);
  Result<ExportInfo> info = fail(ErrorCode::kIo, "");
  auto greeted = co_await handshake.greet(std::move(credentials), std::move(host));
  if (greeted) {
    info = co_await handshake.go(std::move(name), std::move(context));
  } else {
    info = std::unexpected(greeted.error());
  }
  co_await end_handshake();
  tls_ = handshake.take_tls();
  if (timed_out_ && !info) {
    co_return fail(ErrorCode::kIo, "Failed to negotiate: the server took too long");
  }
  structured_ = handshake.structured();
  if (info) {
    context_id_ = info->context_id;
    alive_ = true;
  }
  co_return info;
}

Task<Result<std::vector<ExportInfo>>> Connection::list(std::shared_ptr<const TlsCredentials> credentials,
                                                       std::string host) {
  spawn(limit_handshake());
  ClientHandshake handshake(ring_, socket_, in_, out_);
  Result<std::vector<ExportInfo>> exports;
  auto greeted = co_await handshake.greet(std::move(credentials), std::move(host));
  if (greeted) {
    exports = co_await handshake.list();
  } else {
    exports = std::unexpected(greeted.error());
  }
  co_await end_handshake();
  tls_ = handshake.take_tls();
  if (tls_ && exports) {
    tls_->finish();
  }
  if (timed_out_ && !exports) {
    co_return fail(ErrorCode::kIo, "Failed to negotiate: the server took too long");
  }
  co_return exports;
}

void Connection::read_replies(std::shared_ptr<Connection> self) { spawn(reader(std::move(self))); }

Task<void> Connection::reader(std::shared_ptr<Connection> self) {
  self->reading_ = true;
  for (;;) {
    auto got = co_await self->read_reply();
    if (!got) {
      break;
    }
  }
  self->shut_down();
  self->reading_ = false;
  self->lose();
  self->ended_.wake_all();
}

void Connection::shut_down() { socket_.shut_down(); }

void Connection::lose() {
  if (alive_) {
    alive_ = false;
    lost_at_ = std::chrono::steady_clock::now();
  }
  for (auto& slot : slots_) {
    if (slot.used && !slot.done) {
      slot.reply.lost = true;
      finish(slot);
    }
  }
  slot_free_.wake_all();
}

void Connection::finish(Slot& slot) {
  slot.done = true;
  if (slot.waiter) {
    std::exchange(slot.waiter, {}).resume();
  }
}

Connection::Slot* Connection::find(std::uint64_t cookie) {
  const auto index = cookie & 0xffffffffU;
  if (index >= slots_.size()) {
    return nullptr;
  }
  auto& slot = slots_[index];
  return slot.used && !slot.done && slot.generation == cookie >> 32U ? &slot : nullptr;
}

Connection::Slot* Connection::free_slot() {
  for (auto& slot : slots_) {
    if (!slot.used) {
      return &slot;
    }
  }
  return nullptr;
}

Task<Connection::Reply> Connection::request(Request request) {
  Slot* slot = nullptr;
  while (alive_ && (slot = free_slot()) == nullptr) {
    co_await slot_free_.wait();
  }
  if (!alive_) {
    co_return Reply{.lost = true};
  }
  slot->used = true;
  slot->done = false;
  slot->received = 0;
  ++slot->generation;
  slot->request = request;
  slot->reply = {};
  const auto index = static_cast<std::uint64_t>(slot - slots_.data());
  RequestHeader header{kRequestMagic,
                       request.flags,
                       static_cast<std::uint16_t>(request.command),
                       std::uint64_t{slot->generation} << 32U | index,
                       request.offset,
                       request.length};
  std::vector<iovec> pieces{{&header, sizeof header}};
  if (request.command == Command::kWrite) {
    pieces.insert(pieces.end(), request.data.begin(), request.data.end());
  }
  auto sent = co_await out_.send(pieces);
  if (!sent) {
    shut_down();  // the reader notices, and ends everything
  }
  co_await Arrival{*slot};
  auto reply = std::move(slot->reply);
  slot->used = false;
  slot_free_.wake_one();
  co_return reply;
}

Task<void> Connection::close() {
  if (alive_) {
    RequestHeader header{kRequestMagic, 0, static_cast<std::uint16_t>(Command::kDisconnect), 0, 0, 0};
    const iovec piece{&header, sizeof header};
    (void)co_await out_.send(IoVec{&piece, 1});
    if (tls_) {
      tls_->finish();
    }
  }
  shut_down();
  while (reading_) {
    co_await ended_.wait();
  }
}

Task<Result<void>> Connection::read_reply() {
  SimpleReplyHeader header;
  if (!in_.take(&header, sizeof header)) {
    auto got = co_await in_.read(&header, sizeof header);
    if (!got) {
      co_return got;
    }
  }
  if (header.magic == kSimpleReplyMagic) {
    Slot* const slot = find(header.cookie);
    const bool reads = slot != nullptr && slot->request.command == Command::kRead;
    if (slot == nullptr || (structured_ && reads)) {
      co_return protocol_error("Protocol error: simple reply when structured reply chunk was expected");
    }
    slot->reply.error = header.error;
    if (reads && header.error == 0) {
      auto got = co_await read_data(*slot, 0, slot->request.length);
      if (!got) {
        co_return got;
      }
    }
    finish(*slot);
    co_return Result<void>{};
  }
  if (header.magic != kStructuredReplyMagic || !structured_) {
    co_return protocol_error(fmt::format("invalid magic (got {:#x})", +header.magic));
  }
  // The second field of a chunk's header is flags and type; the third is the cookie, as before.
  const auto flags = static_cast<std::uint16_t>(header.error >> 16U);
  const auto type = static_cast<std::uint16_t>(header.error & 0xffffU);
  Be<std::uint32_t> length;
  auto got = co_await in_.read(&length, sizeof length);
  if (!got) {
    co_return got;
  }
  Slot* const slot = find(header.cookie);
  if (slot == nullptr) {
    co_return protocol_error("Protocol error: a reply to no request");
  }
  auto last = co_await read_chunk(*slot, flags, type, length);
  if (!last) {
    co_return std::unexpected(last.error());
  }
  if (*last) {
    const bool short_read = slot->request.command == Command::kRead && slot->reply.error == 0 &&
                            slot->received != slot->request.length;
    if (short_read) {
      co_return protocol_error("Protocol error: the server left out a part of the data");
    }
    finish(*slot);
  }
  co_return Result<void>{};
}

Task<Result<bool>> Connection::read_chunk(Slot& slot, std::uint16_t flags, std::uint16_t type,
                                          std::uint32_t length) {
  const bool reads = slot.request.command == Command::kRead;
  Result<void> done;
  if (type == kChunkNone && length == 0 && (flags & kChunkDone) != 0) {
    co_return true;
  }
  if (type == kChunkOffsetData && reads && length > sizeof(std::uint64_t)) {
    Be<std::uint64_t> offset;
    done = co_await in_.read(&offset, sizeof offset);
    const std::uint64_t bytes = length - sizeof offset;
    const std::uint64_t at = offset - slot.request.offset;
    if (done &&
        (offset < slot.request.offset || at > slot.request.length || bytes > slot.request.length - at)) {
      co_return protocol_error("Protocol error: server sent chunk exceeding requested region");
    }
    if (done) {
      done = co_await read_data(slot, at, bytes);
    }
  } else if (type == kChunkOffsetHole && reads && length == 12) {
    struct {
      Be<std::uint64_t> offset;
      Be<std::uint32_t> bytes;
    } hole;
    done = co_await in_.read(&hole, sizeof hole);
    const std::uint64_t at = hole.offset - slot.request.offset;
    if (done && (hole.offset < slot.request.offset || at > slot.request.length || hole.bytes == 0 ||
                 hole.bytes > slot.request.length - at)) {
      co_return protocol_error("Protocol error: server sent chunk exceeding requested region");
    }
    if (done) {
      zero_iovec(slot.request.data, at, hole.bytes);
      slot.received += hole.bytes;
    }
  } else if (type == kChunkBlockStatus && slot.request.command == Command::kBlockStatus) {
    done = co_await read_extents(slot, length);
  } else if ((type & kChunkErrorBit) != 0) {
    done = co_await read_error(slot, type, length);
  } else {
    co_return protocol_error(fmt::format("Protocol error: unexpected reply type {}", type));
  }
  if (!done) {
    co_return std::unexpected(done.error());
  }
  co_return (flags & kChunkDone) != 0;
}

Task<Result<void>> Connection::read_data(Slot& slot, std::uint64_t at, std::uint64_t bytes) {
  const IoSlice part(slot.request.data, at, bytes);
  for (const auto& piece : part.vec()) {
    auto got = co_await in_.read(piece.iov_base, piece.iov_len);
    if (!got) {
      co_return got;
    }
  }
  slot.received += bytes;
  co_return Result<void>{};
}

Task<Result<void>> Connection::read_error(Slot& slot, std::uint16_t type, std::uint32_t length) {
  struct {
    Be<std::uint32_t> error;
    Be<std::uint16_t> bytes;
  } header;
  if (length < sizeof header || length > kMaxString + 64) {
    co_return protocol_error("Protocol error: invalid payload for structured error");
  }
  std::string payload(length, '\0');
  auto got = co_await in_.read(payload.data(), payload.size());
  if (!got) {
    co_return got;
  }
  Reader reader(payload);
  const auto error = reader.take<std::uint32_t>();
  const auto message = reader.take_bytes(reader.take<std::uint16_t>());
  const std::size_t offset_bytes = type == kChunkErrorOffset ? 8 : 0;
  if (!reader.ok() || error == 0 || reader.rest().size() < offset_bytes) {
    co_return protocol_error("Protocol error: invalid payload for structured error");
  }
  if (slot.reply.error == 0) {
    slot.reply.error = error;
    slot.reply.message = message;
  }
  co_return Result<void>{};
}

Task<Result<void>> Connection::read_extents(Slot& slot, std::uint32_t length) {
  // One extent is asked for; a server may tell more, which are read and not used.
  if (length < 12 || (length - 4) % 8 != 0 || length > kMaxBytes || !context_id_) {
    co_return protocol_error("Protocol error: invalid payload for NBD_REPLY_TYPE_BLOCK_STATUS");
  }
  struct {
    Be<std::uint32_t> context;
    Extent first;
  } message;
  auto got = co_await in_.read(&message, sizeof message);
  if (!got) {
    co_return got;
  }
  if (message.context != *context_id_) {
    co_return protocol_error(fmt::format(
        "Protocol error: unexpected context id {} for NBD_REPLY_TYPE_BLOCK_STATUS, when negotiated "
        "context id is {}",
        +message.context, *context_id_));
  }
  if (message.first.length == 0) {
    co_return protocol_error("Protocol error: server sent status chunk with zero length");
  }
  slot.reply.extent = message.first;
  got = co_await in_.skip(length - sizeof message);
  co_return got;
}

}  // namespace whistler::nbd
