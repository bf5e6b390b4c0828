#include "block/nbd/client_handshake.hpp"

#include <fmt/format.h>

namespace whistler::nbd {

namespace {

/// The longest answer, and how many of them one option may have.
constexpr std::uint32_t kMaxAnswer = 64 * 1024;
constexpr unsigned kMaxAnswers = 16384;

std::unexpected<Error> protocol_error(std::string message) {
  return fail(ErrorCode::kInvalid, std::move(message));
}

/// The server's refusal in words.
std::unexpected<Error> refusal(std::uint32_t type, Option option, const std::string& reason) {
  const auto number = static_cast<std::uint32_t>(option);
  const auto which = fmt::format("option {} ({})", number, option_name(number));
  std::string message;
  switch (type) {
    case kErrUnsupported: message = fmt::format("Server does not support {}", which); break;
    case kErrPolicy: message = fmt::format("Denied by server for {}", which); break;
    case kErrInvalid: message = fmt::format("Invalid parameters for {}", which); break;
    case kErrPlatform: message = fmt::format("Server lacks support for {}", which); break;
    case kErrTlsRequired:
      message = fmt::format("TLS negotiation required before {}\nDid you forget a valid tls-creds?", which);
      break;
    case kErrUnknown: message = "Requested export not available"; break;
    case kErrShutdown: message = fmt::format("Server shutting down before {}", which); break;
    case kErrBlockSizeRequired: message = fmt::format("Server requires INFO_BLOCK_SIZE for {}", which); break;
    default: message = fmt::format("Unknown error code when asking for {}", which); break;
  }
  if (!reason.empty()) {
    message += "\nserver reported: " + reason.substr(0, kMaxString);
  }
  return fail(type == kErrUnknown ? ErrorCode::kNotFound : ErrorCode::kInvalid, std::move(message));
}

std::string export_payload(const std::string& name, bool block_size) {
  Writer payload;
  payload.put_string(name);
  payload.put(static_cast<std::uint16_t>(block_size ? 2 : 0));
  if (block_size) {
    payload.put(kInfoBlockSize);
    payload.put(kInfoDescription);
  }
  return payload.bytes();
}

/// Takes one NBD_REP_INFO in.
Result<void> apply_info(const std::string& payload, ExportInfo& info, bool& have_export) {
  Reader reader(payload);
  switch (reader.take<std::uint16_t>()) {
    case kInfoExport:
      info.bytes = reader.take<std::uint64_t>();
      info.flags = reader.take<std::uint16_t>();
      have_export = true;
      break;
    case kInfoBlockSize:
      info.min_block = reader.take<std::uint32_t>();
      info.preferred_block = reader.take<std::uint32_t>();
      info.max_block = reader.take<std::uint32_t>();
      if (!std::has_single_bit(info.min_block) || info.min_block > kMaxBytes) {
        return protocol_error(
            fmt::format("server minimum block size {} is not a power of two", info.min_block));
      }
      if (info.max_block < info.min_block) {
        return protocol_error(fmt::format("server maximum block size {} is not valid", info.max_block));
      }
      break;
    case kInfoDescription: info.description = reader.rest(); break;
    default: break;  // of no use here
  }
  return reader.ok() ? Result<void>{} : protocol_error("an NBD_REP_INFO of the server is too short");
}

}  // namespace

Task<Result<void>> ClientHandshake::greet(std::shared_ptr<const TlsCredentials> credentials,
                                          std::string host) {
  Be<std::uint64_t> magic;
  auto got = co_await in_.read(&magic, sizeof magic);
  if (!got) {
    co_return std::unexpected(got.error().within("Failed to read initial magic"));
  }
  if (magic != kMagic) {
    co_return protocol_error(fmt::format("Bad initial magic received: {:#x}", +magic));
  }
  got = co_await in_.read(&magic, sizeof magic);
  if (!got) {
    co_return std::unexpected(got.error().within("Failed to read server magic"));
  }
  if (magic == kOldstyleMagic) {
    oldstyle_ = true;
    if (credentials) {
      co_return protocol_error("Server does not support STARTTLS");
    }
    co_return Result<void>{};
  }
  if (magic != kOptionMagic) {
    co_return protocol_error(fmt::format("Bad server magic received: {:#x}", +magic));
  }
  Be<std::uint16_t> flags;
  got = co_await in_.read(&flags, sizeof flags);
  if (!got) {
    co_return std::unexpected(got.error().within("Failed to read server flags"));
  }
  fixed_newstyle_ = (flags & kFixedNewstyle) != 0;
  no_zeroes_ = (flags & kNoZeroes) != 0;
  Writer answer;
  answer.put(static_cast<std::uint32_t>(flags & (kFixedNewstyle | kNoZeroes)));
  auto sent = co_await out_.send(answer.bytes());
  if (!sent) {
    co_return std::unexpected(sent.error().within("Failed to send clientflags field"));
  }
  if (credentials) {
    if (!fixed_newstyle_) {
      co_return protocol_error("Server does not support STARTTLS");
    }
    auto agreed = co_await simple_option(Option::kStartTls);
    if (!agreed) {
      co_return std::unexpected(agreed.error());
    }
    if (!*agreed) {
      co_return protocol_error("Server don't support STARTTLS option");
    }
    if (!in_.empty()) {
      co_return protocol_error("the server sent more before its TLS handshake");
    }
    auto started = co_await TlsStream::start(ring_, socket_.descriptor(), std::move(credentials),
                                             std::move(host), std::string());
    if (!started) {
      co_return std::unexpected(started.error());
    }
    tls_ = std::move(*started);
    in_.use(*tls_);
    out_.use(*tls_);
  }
  if (fixed_newstyle_) {
    auto agreed = co_await simple_option(Option::kStructuredReply);
    if (!agreed) {
      co_return std::unexpected(agreed.error());
    }
    structured_ = *agreed;
  }
  co_return Result<void>{};
}

Task<Result<void>> ClientHandshake::send_option(Option option, std::string payload) {
  Writer message;
  message.put(kOptionMagic);
  message.put(static_cast<std::uint32_t>(option));
  message.put_string(payload);
  auto sent = co_await out_.send(message.bytes());
  if (!sent) {
    co_return std::unexpected(sent.error().within("Failed to send option request"));
  }
  co_return sent;
}

Task<Result<ClientHandshake::Answer>> ClientHandshake::answer(Option option) {
  OptionReplyHeader header;
  auto got = co_await in_.read(&header, sizeof header);
  if (!got) {
    co_return std::unexpected(got.error().within("Failed to read option reply"));
  }
  if (header.magic != kOptionReplyMagic) {
    co_return protocol_error("Unexpected option reply magic");
  }
  if (header.option != static_cast<std::uint32_t>(option)) {
    co_return protocol_error(fmt::format("Unexpected option type {} ({}), expected {} ({})", +header.option,
                                         option_name(header.option), static_cast<std::uint32_t>(option),
                                         option_name(static_cast<std::uint32_t>(option))));
  }
  if (header.length > kMaxAnswer) {
    co_return protocol_error(
        fmt::format("Failed to read option reply: its {} bytes are too many", +header.length));
  }
  Answer answer{header.type, std::string(header.length, '\0')};
  got = co_await in_.read(answer.payload.data(), answer.payload.size());
  if (!got) {
    co_return std::unexpected(got.error().within("Failed to read option reply"));
  }
  co_return answer;
}

Task<Result<bool>> ClientHandshake::simple_option(Option option) {
  auto sent = co_await send_option(option, std::string());
  if (!sent) {
    co_return std::unexpected(sent.error());
  }
  auto got = co_await answer(option);
  if (!got) {
    co_return std::unexpected(got.error());
  }
  if (got->type == kReplyAck) {
    co_return true;
  }
  // Whoever refuses structured replies, for whatever reason, can be talked to without.
  if (got->type == kErrUnsupported || (option == Option::kStructuredReply &&
                                       (got->type & kReplyErrorBit) != 0 && got->type != kErrTlsRequired)) {
    co_return false;
  }
  if (option == Option::kStructuredReply && got->type == kErrTlsRequired) {
    co_return false;  // the option that matters says so in its own name
  }
  if ((got->type & kReplyErrorBit) != 0) {
    co_return refusal(got->type, option, got->payload);
  }
  co_return protocol_error(fmt::format("Unexpected reply type {} to option {}", got->type,
                                       option_name(static_cast<std::uint32_t>(option))));
}

Task<Result<ExportInfo>> ClientHandshake::go(std::string name, std::string context) {
  if (name.size() > kMaxString) {
    co_return protocol_error(fmt::format("export name of {} bytes is too long", name.size()));
  }
  if (oldstyle_) {
    auto info = co_await oldstyle(std::move(name));
    co_return info;
  }
  ExportInfo contexts;
  contexts.name = name;
  if (structured_) {
    auto asked = co_await meta_contexts(Option::kSetMetaContext, contexts, std::move(context));
    if (!asked) {
      co_return std::unexpected(asked.error());
    }
  }
  if (fixed_newstyle_) {
    auto found = co_await info(Option::kGo, name);
    if (!found) {
      co_return std::unexpected(found.error());
    }
    if (*found) {
      (*found)->contexts = contexts.contexts;
      (*found)->context_id = contexts.context_id;
      co_return **found;
    }
  }
  auto found = co_await export_name(std::move(name));
  if (found) {
    found->contexts = contexts.contexts;
    found->context_id = contexts.context_id;
  }
  co_return found;
}

Task<Result<ExportInfo>> ClientHandshake::oldstyle(std::string name) {
  if (!name.empty()) {
    co_return protocol_error("Server does not support non-empty export names");
  }
  struct {
    Be<std::uint64_t> bytes;
    Be<std::uint32_t> flags;
  } message;
  auto got = co_await in_.read(&message, sizeof message);
  if (!got) {
    co_return std::unexpected(got.error().within("Failed to read export length"));
  }
  got = co_await in_.skip(kReservedBytes);
  if (!got) {
    co_return std::unexpected(got.error().within("Failed to read reserved block"));
  }
  ExportInfo info;
  info.bytes = message.bytes;
  info.flags = static_cast<std::uint16_t>(message.flags);
  co_return info;
}

Task<Result<ExportInfo>> ClientHandshake::export_name(std::string name) {
  auto sent = co_await send_option(Option::kExportName, name);
  if (!sent) {
    co_return std::unexpected(sent.error());
  }
  struct {
    Be<std::uint64_t> bytes;
    Be<std::uint16_t> flags;
  } message;
  auto got = co_await in_.read(&message, sizeof message);
  if (!got) {
    co_return std::unexpected(got.error().within("Failed to read export length"));
  }
  if (!no_zeroes_) {
    got = co_await in_.skip(kReservedBytes);
    if (!got) {
      co_return std::unexpected(got.error().within("Failed to read reserved block"));
    }
  }
  ExportInfo info;
  info.name = std::move(name);
  info.bytes = message.bytes;
  info.flags = message.flags;
  co_return info;
}

Task<Result<std::optional<ExportInfo>>> ClientHandshake::info(Option option, std::string name) {
  auto sent = co_await send_option(option, export_payload(name, true));
  if (!sent) {
    co_return std::unexpected(sent.error());
  }
  ExportInfo info;
  info.name = std::move(name);
  bool have_export = false;
  for (unsigned count = 0; count < kMaxAnswers; ++count) {
    auto got = co_await answer(option);
    if (!got) {
      co_return std::unexpected(got.error());
    }
    if (got->type == kErrUnsupported) {
      co_return std::optional<ExportInfo>();
    }
    if ((got->type & kReplyErrorBit) != 0) {
      co_return refusal(got->type, option, got->payload);
    }
    if (got->type == kReplyAck) {
      if (!have_export) {
        co_return protocol_error("broken server omitted NBD_INFO_EXPORT");
      }
      co_return std::optional<ExportInfo>(std::move(info));
    }
    if (got->type != kReplyInfo) {
      co_return protocol_error(fmt::format("unexpected reply type {}, expected {}", got->type, kReplyInfo));
    }
    if (auto ok = apply_info(got->payload, info, have_export); !ok) {
      co_return std::unexpected(ok.error());
    }
  }
  co_return protocol_error("the server does not end its answer");
}

Task<Result<void>> ClientHandshake::meta_contexts(Option option, ExportInfo& info, std::string context) {
  Writer payload;
  payload.put_string(info.name);
  payload.put(static_cast<std::uint32_t>(context.empty() ? 0 : 1));
  if (!context.empty()) {
    payload.put_string(context);
  }
  auto sent = co_await send_option(option, payload.bytes());
  if (!sent) {
    co_return std::unexpected(sent.error());
  }
  for (unsigned count = 0; count < kMaxAnswers; ++count) {
    auto got = co_await answer(option);
    if (!got) {
      co_return std::unexpected(got.error());
    }
    if (got->type == kReplyAck || (got->type & kReplyErrorBit) != 0) {
      co_return Result<void>{};  // a server that knows no contexts is as good as one that has none
    }
    Reader reader(got->payload);
    const auto id = reader.take<std::uint32_t>();
    if (got->type != kReplyMetaContext || !reader.ok()) {
      co_return protocol_error(fmt::format("Unexpected reply type {} to a query of contexts", got->type));
    }
    info.contexts.emplace_back(reader.rest());
    if (reader.rest() == context) {
      info.context_id = id;
    }
  }
  co_return protocol_error("the server does not end its list of contexts");
}

Task<Result<std::vector<ExportInfo>>> ClientHandshake::names() {
  auto sent = co_await send_option(Option::kList, std::string());
  if (!sent) {
    co_return std::unexpected(sent.error());
  }
  std::vector<ExportInfo> exports;
  for (unsigned count = 0; count < kMaxAnswers; ++count) {
    auto got = co_await answer(Option::kList);
    if (!got) {
      co_return std::unexpected(got.error());
    }
    if (got->type == kReplyAck) {
      co_return exports;
    }
    if ((got->type & kReplyErrorBit) != 0) {
      co_return refusal(got->type, Option::kList, got->payload);
    }
    Reader reader(got->payload);
    auto& next = exports.emplace_back();
    next.name = reader.take_string();
    next.description = reader.rest();
    if (got->type != kReplyServer || !reader.ok()) {
      co_return protocol_error(fmt::format("Unexpected reply type {}, expected {}", got->type, kReplyServer));
    }
  }
  co_return protocol_error("the server does not end its list");
}

Task<Result<std::vector<ExportInfo>>> ClientHandshake::list() {
  if (oldstyle_) {
    auto only = co_await oldstyle(std::string());
    if (!only) {
      co_return std::unexpected(only.error());
    }
    co_return std::vector{*only};
  }
  if (!fixed_newstyle_) {
    co_return protocol_error("Server does not support export lists");
  }
  auto exports = co_await names();
  if (!exports) {
    co_return exports;
  }
  for (auto& each : *exports) {
    auto found = co_await info(Option::kInfo, each.name);
    if (!found) {
      co_return std::unexpected(found.error());
    }
    if (!*found) {
      break;  // an old server: the names are all there is
    }
    const auto description = each.description;
    each = **found;
    each.description = description;
    if (structured_) {
      auto asked = co_await meta_contexts(Option::kListMetaContext, each, std::string());
      if (!asked) {
        co_return std::unexpected(asked.error());
      }
    }
  }
  (void)co_await send_option(Option::kAbort, std::string());
  co_return exports;
}

}  // namespace whistler::nbd
