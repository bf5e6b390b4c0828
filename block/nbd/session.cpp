// The second part of a session: requests, many at a time.
#include "block/nbd/session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "block/iovec.hpp"
#include "block/nbd/allocation.hpp"

namespace whistler::nbd {

namespace {

/// A read up to this length is looked through for zeroes, a longer one asks the image where its holes are.
constexpr std::uint32_t kShortRead = 16 * 1024;
/// Pieces of a longer read; what comes after them is sent as data.
constexpr std::size_t kMaxPieces = 64;
/// The longest answer to a status request, in extents.
constexpr std::size_t kMaxExtents = 16384;

std::uint32_t error_number(const Error& error) {
  switch (error.code) {
    case ErrorCode::kPermission: return kEperm;
    case ErrorCode::kNoSpace: return kEnospc;
    case ErrorCode::kInvalid: return kEinval;
    case ErrorCode::kUnsupported: return kEnotsup;
    default: return kEio;
  }
}

bool carries_data(const RequestHeader& header) {
  return header.command == static_cast<std::uint16_t>(Command::kWrite);
}

/// How much memory a request needs while it is under way.
std::uint64_t memory_of(const RequestHeader& header) {
  const auto command = static_cast<Command>(+header.command);
  return command == Command::kRead || command == Command::kWrite ? std::min(+header.length, kMaxBytes) : 0;
}

}  // namespace

Session::Session(Ring& ring, const std::vector<Export>& exports, const ServerOptions& options,
                 UniqueFd connection)
    : ring_(ring),
      exports_(exports),
      options_(options),
      socket_(ring, std::move(connection)),
      in_(socket_),
      out_(socket_) {}

void Session::shut_down() { socket_.shut_down(); }

Task<Result<void>> Session::run() {
  spawn(limit_handshake());
  auto agreed = co_await handshake();
  if (handshake_timer_ != nullptr) {
    ring_.cancel(*handshake_timer_);
  }
  co_await timers_.drain();
  if (timed_out_) {
    co_return fail(ErrorCode::kIo, "option negotiation failed: the client took too long");
  }
  if (!agreed) {
    co_return std::unexpected(agreed.error().within("option negotiation failed"));
  }
  if (!*agreed) {
    co_return Result<void>{};
  }
  if (chosen_for_ != export_) {
    chosen_.clear();
  }
  auto result = co_await transmit();
  shut_down();
  co_await requests_.drain();
  if (!result) {
    co_return std::unexpected(result.error().within("Disconnect client, due to"));
  }
  co_return result;
}

Task<Result<void>> Session::transmit() {
  for (;;) {
    Request request;
    auto more = co_await next_request(request);
    if (!more) {
      co_return std::unexpected(more.error());
    }
    if (!*more) {
      break;
    }
    const auto memory = memory_of(request.header);
    while (under_way_ >= Server::kMaxRequests || request_bytes_ + memory > Server::kMaxRequestBytes) {
      co_await request_done_.wait();
    }
    if (memory != 0) {
      request.data = buffers_.take(memory);
    }
    if (carries_data(request.header)) {
      auto got = co_await in_.read(request.data.data(), request.header.length);
      if (!got) {
        co_return std::unexpected(got.error().within("reading from socket failed"));
      }
    }
    spawn(handle(std::move(request)));
  }
  co_await requests_.drain();
  if (tls_) {
    tls_->finish();
  }
  co_return Result<void>{};
}

Task<Result<bool>> Session::next_request(Request& request) {
  auto& header = request.header;
  if (!in_.take(&header, sizeof header)) {
    auto ended = co_await in_.at_end();
    if (!ended || *ended) {
      co_return false;  // a client that just goes away is nothing to report
    }
    auto got = co_await in_.read(&header, sizeof header);
    if (!got) {
      co_return std::unexpected(got.error().within("reading a request failed"));
    }
  }
  if (header.magic != kRequestMagic) {
    co_return fail(ErrorCode::kInvalid, fmt::format("invalid magic (got {:#x})", +header.magic));
  }
  if (header.command == static_cast<std::uint16_t>(Command::kDisconnect)) {
    co_return false;
  }
  if (carries_data(header) && header.length > kMaxBytes) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("len ({}) is larger than max len ({})", +header.length, kMaxBytes));
  }
  co_return true;
}

Session::Failure Session::failure_of(const Error& error) { return {error_number(error), error.message}; }

Task<void> Session::handle(Request request) {
  // Let go as the very last thing: with the last request may end the session itself.
  const auto pass = requests_.enter();
  const auto memory = memory_of(request.header);
  ++under_way_;
  request_bytes_ += memory;
  const auto wrong = check(request.header);
  const auto command = static_cast<Command>(+request.header.command);
  if (wrong) {
    co_await reply_failure(request.header, *wrong);
  } else if (command == Command::kRead) {
    co_await reply_read(request);
  } else if (command == Command::kBlockStatus) {
    co_await reply_status(request.header);
  } else {
    auto done = co_await perform(request);
    if (done) {
      co_await reply_done(request.header);
    } else {
      co_await reply_failure(request.header, failure_of(done.error()));
    }
  }
  buffers_.give_back(std::move(request.data));
  --under_way_;
  request_bytes_ -= memory;
  request_done_.wake_one();
}

std::optional<Session::Failure> Session::check(const RequestHeader& header) const {
  const auto command = static_cast<Command>(+header.command);
  std::uint16_t allowed = kFlagFua;
  bool writes = false;
  switch (command) {
    case Command::kRead: allowed = static_cast<std::uint16_t>(kFlagFua | (structured_ ? kFlagDf : 0)); break;
    case Command::kWrite:
    case Command::kTrim: writes = true; break;
    case Command::kWriteZeroes:
      writes = true;
      allowed = kFlagFua | kFlagNoHole | kFlagFastZero;
      break;
    case Command::kBlockStatus: allowed = kFlagFua | kFlagReqOne; break;
    case Command::kFlush:
    case Command::kCache: break;
    default: return Failure{kEinval, fmt::format("invalid request type ({}) received", +header.command)};
  }
  if (header.length > kMaxBytes && (command == Command::kRead || command == Command::kCache)) {
    return Failure{kEinval, fmt::format("len ({}) is larger than max len ({})", +header.length, kMaxBytes)};
  }
  if (writes && export_->read_only) {
    return Failure{kEperm, "Export is read-only"};
  }
  const bool ranged = command != Command::kFlush;
  if (ranged && (header.offset > export_->bytes || header.length > export_->bytes - header.offset)) {
    const bool grows = command == Command::kWrite || command == Command::kWriteZeroes;
    return Failure{grows ? kEnospc : kEinval, fmt::format("operation past EOF; From: {}, Len: {}, Size: {}",
                                                          +header.offset, +header.length, export_->bytes)};
  }
  if ((header.flags & ~allowed) != 0) {
    return Failure{
        kEinval, fmt::format("unsupported flags for command {} (got {:#x})", +header.command, +header.flags)};
  }
  if (command == Command::kBlockStatus && chosen_.empty()) {
    return Failure{kEinval, "CMD_BLOCK_STATUS not negotiated"};
  }
  if (command == Command::kBlockStatus && header.length == 0) {
    return Failure{kEinval, "need non-zero length"};
  }
  return std::nullopt;
}

Task<Result<void>> Session::perform(const Request& request) {
  const auto& header = request.header;
  auto& device = *export_->device;
  const std::uint64_t offset = export_->offset + header.offset;
  const bool fua = (header.flags & kFlagFua) != 0;
  Result<void> result;
  switch (static_cast<Command>(+header.command)) {
    case Command::kWrite: {
      const iovec piece{request.data.data(), header.length};
      result = co_await device.writev(offset, {&piece, header.length == 0 ? 0U : 1U}, {.fua = fua});
      break;
    }
    case Command::kFlush: result = co_await device.flush(); break;
    case Command::kTrim:
      result = co_await device.discard(offset, header.length);
      if (result && fua) {
        result = co_await device.flush();
      }
      break;
    case Command::kWriteZeroes:
      result = co_await device.write_zeroes(offset, header.length,
                                            {.may_unmap = (header.flags & kFlagNoHole) == 0, .fua = fua});
      break;
    default: break;  // kCache: the host's page cache does that by itself
  }
  co_return result;
}

Task<void> Session::reply_done(const RequestHeader& header) {
  ChunkHeader chunk{kStructuredReplyMagic, kChunkDone, kChunkNone, header.cookie, 0};
  SimpleReplyHeader simple{kSimpleReplyMagic, 0, header.cookie};
  const bool structured =
      structured_ && (header.command == static_cast<std::uint16_t>(Command::kRead) ||
                      header.command == static_cast<std::uint16_t>(Command::kBlockStatus));
  const iovec piece = structured ? iovec{&chunk, sizeof chunk} : iovec{&simple, sizeof simple};
  (void)co_await out_.send(IoVec{&piece, 1});
}

Task<void> Session::reply_failure(const RequestHeader& header, Failure failure) {
  if (!structured_) {
    SimpleReplyHeader simple{kSimpleReplyMagic, failure.error, header.cookie};
    const iovec piece{&simple, sizeof simple};
    (void)co_await out_.send(IoVec{&piece, 1});
    co_return;
  }
  failure.message.resize(std::min<std::size_t>(failure.message.size(), kMaxString));
  Writer payload;
  payload.put(failure.error);
  payload.put(static_cast<std::uint16_t>(failure.message.size()));
  payload.put(failure.message);
  ChunkHeader chunk{kStructuredReplyMagic, kChunkDone, kChunkError, header.cookie,
                    static_cast<std::uint32_t>(payload.bytes().size())};
  const std::array pieces{iovec{&chunk, sizeof chunk},
                          iovec{const_cast<char*>(payload.bytes().data()), payload.bytes().size()}};
  (void)co_await out_.send(pieces);
}

namespace {

/// A chunk of a structured read with what follows its header.
struct ReadChunk {
  ChunkHeader header;
  Be<std::uint64_t> offset;
  Be<std::uint32_t> hole;
};
static_assert(sizeof(ReadChunk) == 32);

}  // namespace

Task<void> Session::reply_read(Request& request) {
  const auto& header = request.header;
  auto& device = *export_->device;
  const std::uint64_t start = export_->offset + header.offset;
  const std::uint32_t length = header.length;
  if ((header.flags & kFlagFua) != 0) {
    auto flushed = co_await device.flush();
    if (!flushed) {
      co_await reply_failure(header, failure_of(flushed.error()));
      co_return;
    }
  }
  if (length == 0) {
    co_await reply_done(header);
    co_return;
  }
  std::vector<MetaContext::Extent> extents;
  const bool sparse = structured_ && (header.flags & kFlagDf) == 0;
  std::uint64_t known = 0;
  while (sparse && length > kShortRead && known < length && extents.size() < kMaxPieces) {
    auto next = co_await allocation_at(device, start + known, length - known);
    if (!next) {
      break;
    }
    if (!extents.empty() && extents.back().flags == next->flags) {
      extents.back().bytes += next->bytes;
    } else {
      extents.push_back(*next);
    }
    known += next->bytes;
  }
  if (known < length) {
    extents.push_back({length - known, 0});
  }
  std::uint64_t at = 0;
  for (auto& extent : extents) {
    if ((extent.flags & kStateZero) == 0) {
      const iovec piece{request.data.data() + at, extent.bytes};
      auto got = co_await device.readv(start + at, {&piece, 1});
      if (!got) {
        co_await reply_failure(header, failure_of(got.error()));
        co_return;
      }
    }
    at += extent.bytes;
  }
  if (!structured_) {
    SimpleReplyHeader simple{kSimpleReplyMagic, 0, header.cookie};
    const std::array pieces{iovec{&simple, sizeof simple}, iovec{request.data.data(), length}};
    (void)co_await out_.send(pieces);
    co_return;
  }
  if (sparse && length <= kShortRead && is_zero({request.data.data(), length})) {
    extents.front().flags = kStateZero;
  }
  std::vector<ReadChunk> chunks(extents.size());
  std::vector<iovec> pieces;
  at = 0;
  for (std::size_t i = 0; i < extents.size(); ++i) {
    const bool hole = (extents[i].flags & kStateZero) != 0;
    const auto bytes = static_cast<std::uint32_t>(extents[i].bytes);
    chunks[i] = {
        .header = {kStructuredReplyMagic, i + 1 == extents.size() ? kChunkDone : std::uint16_t{0},
                   hole ? kChunkOffsetHole : kChunkOffsetData, header.cookie, hole ? 12U : bytes + 8U},
        .offset = header.offset + at,
        .hole = bytes};
    pieces.push_back({&chunks[i], hole ? sizeof(ReadChunk) : sizeof(ReadChunk) - 4});
    if (!hole) {
      pieces.push_back({request.data.data() + at, bytes});
    }
    at += bytes;
  }
  (void)co_await out_.send(pieces);
}

Task<Result<MetaContext::Extent>> Session::extent(Chosen chosen, std::uint64_t offset, std::uint64_t bytes) {
  if (chosen.context) {
    auto known = co_await chosen.context->extent(offset, bytes);
    co_return known;
  }
  auto known = co_await allocation_at(*export_->device, offset, bytes);
  co_return known;
}

Task<Result<std::string>> Session::extents(const RequestHeader& header, Chosen chosen) {
  const bool one = (header.flags & kFlagReqOne) != 0;
  std::vector<MetaContext::Extent> list;
  std::uint64_t at = 0;
  while (at < header.length) {
    auto next = co_await extent(chosen, export_->offset + header.offset + at, header.length - at);
    if (!next) {
      co_return std::unexpected(next.error());
    }
    next->bytes = std::min<std::uint64_t>(next->bytes, header.length - at);
    if (!list.empty() && list.back().flags == next->flags) {
      list.back().bytes += next->bytes;
    } else if (list.size() == (one ? 1 : kMaxExtents)) {
      break;
    } else {
      list.push_back(*next);
    }
    at += next->bytes;
  }
  Writer payload;
  payload.put(chosen.id);
  for (const auto& each : list) {
    payload.put(static_cast<std::uint32_t>(each.bytes));
    payload.put(each.flags);
  }
  co_return payload.bytes();
}

Task<void> Session::reply_status(const RequestHeader& header) {
  std::vector<std::string> payloads;
  for (const auto& chosen : chosen_) {
    auto payload = co_await extents(header, chosen);
    if (!payload) {
      co_await reply_failure(header, failure_of(payload.error()));
      co_return;
    }
    payloads.push_back(std::move(*payload));
  }
  std::vector<ChunkHeader> chunks(payloads.size());
  std::vector<iovec> pieces;
  for (std::size_t i = 0; i < payloads.size(); ++i) {
    chunks[i] = {kStructuredReplyMagic, i + 1 == payloads.size() ? kChunkDone : std::uint16_t{0},
                 kChunkBlockStatus, header.cookie, static_cast<std::uint32_t>(payloads[i].size())};
    pieces.push_back({&chunks[i], sizeof chunks[i]});
    pieces.push_back({payloads[i].data(), payloads[i].size()});
  }
  (void)co_await out_.send(pieces);
}

}  // namespace whistler::nbd
