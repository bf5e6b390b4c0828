// The first part of a session: what client and server agree on.
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "block/nbd/session.hpp"

namespace whistler::nbd {

namespace {

/// Payload of an option that is looked at; a longer one is skipped and refused.
constexpr std::uint32_t kMaxPayload = 1024 * 1024;
/// A name as it is shown in messages.
constexpr std::size_t kMaxShown = 80;

std::string shown(std::string_view name) {
  return name.size() < kMaxShown ? std::string(name) : fmt::format("{}...", name.substr(0, kMaxShown - 4));
}

}  // namespace

Task<void> Session::limit_handshake() {
  const auto pass = timers_.enter();
  auto timer = ring_.timeout(options_.handshake_time);
  handshake_timer_ = &timer;
  const auto result = co_await timer;
  handshake_timer_ = nullptr;
  if (result == -ETIME) {
    timed_out_ = true;
    shut_down();
  }
}

const Export* Session::find_export(std::string_view name) const {
  const auto found =
      std::find_if(exports_.begin(), exports_.end(), [&](const Export& each) { return each.name == name; });
  return found == exports_.end() ? nullptr : &*found;
}

Task<Result<bool>> Session::handshake() {
  Writer greeting;
  greeting.put(kMagic);
  greeting.put(kOptionMagic);
  greeting.put(static_cast<std::uint16_t>(kFixedNewstyle | kNoZeroes));
  auto sent = co_await out_.send(greeting.bytes());
  if (!sent) {
    co_return std::unexpected(sent.error().within("write failed"));
  }
  Be<std::uint32_t> flags;
  auto got = co_await in_.read(&flags, sizeof flags);
  if (!got) {
    co_return std::unexpected(got.error().within("read failed"));
  }
  fixed_newstyle_ = (flags & kFixedNewstyle) != 0;
  no_zeroes_ = (flags & kNoZeroes) != 0;
  if ((flags & ~static_cast<std::uint32_t>(kFixedNewstyle | kNoZeroes)) != 0) {
    co_return fail(ErrorCode::kInvalid, fmt::format("Unknown client flags {:#x} received", +flags));
  }
  auto agreed = co_await options_loop();
  co_return agreed;
}

Task<Result<bool>> Session::options_loop() {
  while (export_ == nullptr) {
    auto ended = co_await in_.at_end();
    if (!ended) {
      co_return std::unexpected(ended.error().within("Failed to read opts magic"));
    }
    if (*ended) {
      co_return false;  // a client that goes away between two options is nothing to report
    }
    OptionHeader header;
    auto got = co_await in_.read(&header, sizeof header);
    if (!got) {
      co_return std::unexpected(got.error().within("Failed to read opts magic"));
    }
    if (header.magic != kOptionMagic) {
      co_return fail(ErrorCode::kInvalid, "Bad magic received");
    }
    if (header.length > kMaxBytes) {
      co_return fail(ErrorCode::kInvalid,
                     fmt::format("len ({}) is larger than max len ({})", +header.length, kMaxBytes));
    }
    if (header.length > kMaxPayload) {
      auto skipped = co_await in_.skip(header.length);
      if (!skipped) {
        co_return std::unexpected(skipped.error());
      }
      auto refused = co_await refuse(
          header.option, kErrTooBig,
          fmt::format("option '{}' of {} bytes is too long", option_name(header.option), +header.length));
      if (!refused) {
        co_return refused;
      }
      continue;
    }
    std::string payload(header.length, '\0');
    got = co_await in_.read(payload.data(), payload.size());
    if (!got) {
      co_return std::unexpected(got.error().within("Failed to read option"));
    }
    auto go_on = co_await answer_option(header.option, std::move(payload));
    if (!go_on || !*go_on) {
      co_return go_on;
    }
  }
  co_return true;
}

Task<Result<void>> Session::reply(std::uint32_t option, std::uint32_t type, std::string payload) {
  Writer message;
  message.put(kOptionReplyMagic);
  message.put(option);
  message.put(type);
  message.put_string(payload);
  auto sent = co_await out_.send(message.bytes());
  if (!sent) {
    co_return std::unexpected(sent.error().within("write failed"));
  }
  co_return sent;
}

Task<Result<bool>> Session::refuse(std::uint32_t option, std::uint32_t type, std::string message) {
  auto sent = co_await reply(option, type, std::move(message));
  if (!sent) {
    co_return std::unexpected(sent.error());
  }
  co_return true;
}

Task<Result<bool>> Session::answer_option(std::uint32_t option, std::string payload) {
  const auto kind = static_cast<Option>(option);
  if (!fixed_newstyle_ && kind != Option::kExportName) {
    co_return fail(ErrorCode::kInvalid, fmt::format("Unsupported option {:#x}", option));
  }
  if (kind == Option::kAbort) {
    (void)co_await reply(option, kReplyAck, std::string());
    co_return false;
  }
  if (options_.tls && !tls_ && kind != Option::kStartTls) {
    auto message = fmt::format("Option {:#x} not permitted before TLS", option);
    if (kind == Option::kExportName) {
      co_return fail(ErrorCode::kPermission, std::move(message));
    }
    auto refused = co_await refuse(option, kErrTlsRequired, std::move(message));
    co_return refused;
  }
  switch (kind) {
    case Option::kExportName: {
      auto result = co_await do_export_name(std::move(payload));
      co_return result;
    }
    case Option::kList: {
      auto result = co_await do_list(std::move(payload));
      co_return result;
    }
    case Option::kInfo:
    case Option::kGo: {
      auto result = co_await do_go(option, std::move(payload));
      co_return result;
    }
    case Option::kStartTls: {
      auto result = co_await do_start_tls(std::move(payload));
      co_return result;
    }
    case Option::kStructuredReply: {
      const char* wrong = nullptr;
      if (!payload.empty()) {
        wrong = "option 'structured reply' has unexpected length";
      } else if (structured_) {
        wrong = "structured reply already negotiated";
      }
      structured_ = true;
      auto result =
          co_await refuse(option, wrong != nullptr ? kErrInvalid : kReplyAck, wrong != nullptr ? wrong : "");
      co_return result;
    }
    case Option::kListMetaContext:
    case Option::kSetMetaContext: {
      auto result = co_await do_meta_context(option, std::move(payload));
      co_return result;
    }
    case Option::kAbort: break;
  }
  auto refused = co_await refuse(option, kErrUnsupported,
                                 fmt::format("Unsupported option {} ({})", option, option_name(option)));
  co_return refused;
}

Task<Result<bool>> Session::do_export_name(std::string name) {
  if (name.size() > kMaxString) {
    co_return fail(ErrorCode::kInvalid, "Bad length received");
  }
  const Export* const wanted = find_export(name);
  if (wanted == nullptr) {
    co_return fail(ErrorCode::kNotFound, "export not found");
  }
  Writer message;
  message.put(wanted->bytes);
  message.put(wanted->flags(structured_));
  if (!no_zeroes_) {
    message.put(std::string(kReservedBytes, '\0'));
  }
  auto sent = co_await out_.send(message.bytes());
  if (!sent) {
    co_return std::unexpected(sent.error().within("write failed"));
  }
  export_ = wanted;
  co_return true;
}

Task<Result<bool>> Session::do_list(std::string payload) {
  const auto option = static_cast<std::uint32_t>(Option::kList);
  if (!payload.empty()) {
    auto refused = co_await refuse(option, kErrInvalid, "option 'list' has unexpected length");
    co_return refused;
  }
  for (const auto& each : exports_) {
    Writer entry;
    entry.put_string(each.name);
    entry.put(each.description);
    auto sent = co_await reply(option, kReplyServer, entry.bytes());
    if (!sent) {
      co_return std::unexpected(sent.error());
    }
  }
  auto done = co_await refuse(option, kReplyAck, std::string());
  co_return done;
}

Task<Result<bool>> Session::do_go(std::uint32_t option, std::string payload) {
  Reader reader(payload);
  const auto name = reader.take_string();
  const auto count = reader.take<std::uint16_t>();
  bool wants_name = false;
  bool wants_description = false;
  bool wants_block_size = false;
  for (unsigned i = 0; i < count && reader.ok(); ++i) {
    const auto wanted = reader.take<std::uint16_t>();
    wants_name = wants_name || wanted == kInfoName;
    wants_description = wants_description || wanted == kInfoDescription;
    wants_block_size = wants_block_size || wanted == kInfoBlockSize;
  }
  if (!reader.at_end() || name.size() > kMaxString) {
    auto refused = co_await refuse(option, kErrInvalid,
                                   fmt::format("option '{}' has an invalid length", option_name(option)));
    co_return refused;
  }
  const Export* const found = find_export(name);
  if (found == nullptr) {
    auto refused = co_await refuse(option, kErrUnknown, fmt::format("export '{}' not present", shown(name)));
    co_return refused;
  }
  const bool going = option == static_cast<std::uint32_t>(Option::kGo);
  std::vector<std::string> answers;
  if (wants_name) {
    Writer info;
    info.put(kInfoName);
    info.put(found->name);
    answers.push_back(info.bytes());
  }
  if (wants_description && !found->description.empty()) {
    Writer info;
    info.put(kInfoDescription);
    info.put(found->description);
    answers.push_back(info.bytes());
  }
  Writer sizes;
  sizes.put(kInfoBlockSize);
  // Who does not ask for it need not keep to it: unaligned requests are served all the same.
  sizes.put(!going || wants_block_size ? found->min_block : std::uint32_t{1});
  sizes.put(found->preferred_block());
  sizes.put(kMaxBytes);
  answers.push_back(sizes.bytes());
  Writer info;
  info.put(kInfoExport);
  info.put(found->bytes);
  info.put(found->flags(structured_));
  answers.push_back(info.bytes());
  for (const auto& answer : answers) {
    auto sent = co_await reply(option, kReplyInfo, answer);
    if (!sent) {
      co_return std::unexpected(sent.error());
    }
  }
  if (!going && !wants_block_size && found->min_block > 1) {
    auto refused =
        co_await refuse(option, kErrBlockSizeRequired, "request NBD_INFO_BLOCK_SIZE to use this export");
    co_return refused;
  }
  auto done = co_await refuse(option, kReplyAck, std::string());
  if (done && going) {
    export_ = found;
  }
  co_return done;
}

Task<Result<bool>> Session::do_start_tls(std::string payload) {
  const auto option = static_cast<std::uint32_t>(Option::kStartTls);
  std::uint32_t wrong = 0;
  std::string reason;
  if (!payload.empty()) {
    wrong = kErrInvalid;
    reason = "option 'starttls' has unexpected length";
  } else if (tls_) {
    wrong = kErrInvalid;
    reason = "TLS already enabled";
  } else if (!options_.tls) {
    wrong = kErrPolicy;
    reason = "TLS not configured";
  }
  if (wrong != 0) {
    auto refused = co_await refuse(option, wrong, std::move(reason));
    co_return refused;
  }
  if (!in_.empty()) {
    co_return fail(ErrorCode::kInvalid, "the client sent more before its TLS handshake");
  }
  auto sent = co_await reply(option, kReplyAck, std::string());
  if (!sent) {
    co_return std::unexpected(sent.error());
  }
  auto started = co_await TlsStream::start(ring_, socket_.descriptor(), options_.tls, std::string(),
                                           options_.authorized);
  if (!started) {
    co_return std::unexpected(started.error());
  }
  tls_ = std::move(*started);
  in_.use(*tls_);
  out_.use(*tls_);
  // Nothing said in the clear counts.
  structured_ = false;
  chosen_.clear();
  chosen_for_ = nullptr;
  co_return true;
}

Task<Result<bool>> Session::do_meta_context(std::uint32_t option, std::string payload) {
  const bool setting = option == static_cast<std::uint32_t>(Option::kSetMetaContext);
  if (!structured_) {
    auto refused = co_await refuse(
        option, kErrInvalid,
        fmt::format("request option '{}' when structured reply is not negotiated", option_name(option)));
    co_return refused;
  }
  Reader reader(payload);
  const auto name = reader.take_string();
  const Export* const found = find_export(name);
  const auto count = reader.take<std::uint32_t>();
  std::vector<std::string_view> queries;
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
    queries.push_back(reader.take_string());
  }
  if (!reader.at_end() || name.size() > kMaxString) {
    auto refused = co_await refuse(option, kErrInvalid,
                                   fmt::format("option '{}' has an invalid length", option_name(option)));
    co_return refused;
  }
  if (found == nullptr) {
    auto refused = co_await refuse(option, kErrUnknown, fmt::format("export '{}' not present", shown(name)));
    co_return refused;
  }
  // A query that ends with a colon stands, in a list, for everything that begins with it.
  const auto asked = [&](std::string_view context) {
    return (!setting && queries.empty()) ||
           std::any_of(queries.begin(), queries.end(), [&](std::string_view query) {
             return query == context || (!setting && query.ends_with(':') && context.starts_with(query));
           });
  };
  std::vector<Chosen> chosen;
  if (asked(kBaseAllocation)) {
    chosen.push_back({0, nullptr});
  }
  for (std::uint32_t i = 0; i < found->contexts.size(); ++i) {
    if (asked(found->contexts[i]->name())) {
      chosen.push_back({i + 1, found->contexts[i]});
    }
  }
  for (const auto& each : chosen) {
    Writer entry;
    entry.put(setting ? each.id : std::uint32_t{0});
    entry.put(each.context ? each.context->name() : std::string(kBaseAllocation));
    auto sent = co_await reply(option, kReplyMetaContext, entry.bytes());
    if (!sent) {
      co_return std::unexpected(sent.error());
    }
  }
  if (setting) {
    chosen_ = std::move(chosen);
    chosen_for_ = found;
  }
  auto done = co_await refuse(option, kReplyAck, std::string());
  co_return done;
}

}  // namespace whistler::nbd
