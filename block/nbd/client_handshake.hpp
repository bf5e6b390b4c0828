// A client's side of the handshake. What the server says is not trusted: lengths and counts have limits.
#pragma once

#include <bit>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/nbd/protocol.hpp"
#include "block/nbd/stream.hpp"
#include "block/nbd/tls.hpp"

namespace whistler::nbd {

/// What a server says of one of its exports.
struct ExportInfo {
  std::string name = {};
  std::string description = {};
  std::uint64_t bytes = 0;
  std::uint16_t flags = 0;
  std::uint32_t min_block = 0;  ///< 0: not said, as are the next two
  std::uint32_t preferred_block = 0;
  std::uint32_t max_block = 0;
  std::vector<std::string> contexts = {};  ///< what it can tell (list), or does (go)
  std::optional<std::uint32_t> context_id = {};
};

class ClientHandshake {
 public:
  ClientHandshake(Ring& ring, SocketStream& socket, Input& in, Output& out)
      : ring_(ring), socket_(socket), in_(in), out_(out) {}

  /// The greeting; TLS if there are `credentials`; structured replies if the server has them.
  [[nodiscard]] Task<Result<void>> greet(std::shared_ptr<const TlsCredentials> credentials, std::string host);
  /// Chooses the export, and asks for `context` of it. Requests may follow.
  [[nodiscard]] Task<Result<ExportInfo>> go(std::string name, std::string context);
  /// All exports with all that is known of them, and the end of the conversation.
  [[nodiscard]] Task<Result<std::vector<ExportInfo>>> list();

  [[nodiscard]] bool structured() const { return structured_; }
  /// The session that streams read and write through from now on, if there is one.
  [[nodiscard]] std::unique_ptr<TlsStream> take_tls() { return std::move(tls_); }

 private:
  struct Answer {
    std::uint32_t type = 0;
    std::string payload;
  };

  [[nodiscard]] Task<Result<void>> send_option(Option option, std::string payload);
  [[nodiscard]] Task<Result<Answer>> answer(Option option);
  /// The one answer of an option without data: whether the server has it.
  [[nodiscard]] Task<Result<bool>> simple_option(Option option);
  [[nodiscard]] Task<Result<ExportInfo>> oldstyle(std::string name);
  [[nodiscard]] Task<Result<ExportInfo>> export_name(std::string name);
  /// NBD_OPT_INFO or NBD_OPT_GO; nothing if the server does not know them.
  [[nodiscard]] Task<Result<std::optional<ExportInfo>>> info(Option option, std::string name);
  [[nodiscard]] Task<Result<void>> meta_contexts(Option option, ExportInfo& info, std::string context);
  [[nodiscard]] Task<Result<std::vector<ExportInfo>>> names();

  Ring& ring_;
  SocketStream& socket_;
  Input& in_;
  Output& out_;
  std::unique_ptr<TlsStream> tls_;
  bool oldstyle_ = false;
  bool fixed_newstyle_ = false;
  bool no_zeroes_ = false;
  bool structured_ = false;
};

}  // namespace whistler::nbd
