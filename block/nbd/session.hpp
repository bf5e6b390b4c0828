// One client of a server: handshake, then requests.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "block/nbd/buffers.hpp"
#include "block/nbd/export.hpp"
#include "block/nbd/protocol.hpp"
#include "block/nbd/server.hpp"
#include "block/nbd/stream.hpp"

namespace whistler::nbd {

class Session {
 public:
  Session(Ring& ring, const std::vector<Export>& exports, const ServerOptions& options, UniqueFd connection);

  /// To the end of the connection. An error says what the client did wrong.
  [[nodiscard]] Task<Result<void>> run();
  /// Makes run() end soon.
  void shut_down();
  /// Whether the client came as far as an export.
  [[nodiscard]] bool negotiated() const { return export_ != nullptr; }

 private:
  // session_handshake.cpp
  [[nodiscard]] Task<Result<bool>> handshake();
  [[nodiscard]] Task<void> limit_handshake();
  [[nodiscard]] Task<Result<bool>> options_loop();
  [[nodiscard]] Task<Result<bool>> answer_option(std::uint32_t option, std::string payload);
  [[nodiscard]] Task<Result<void>> reply(std::uint32_t option, std::uint32_t type, std::string payload = {});
  [[nodiscard]] Task<Result<bool>> refuse(std::uint32_t option, std::uint32_t type, std::string message);
  [[nodiscard]] Task<Result<bool>> do_export_name(std::string name);
  [[nodiscard]] Task<Result<bool>> do_list(std::string payload);
  [[nodiscard]] Task<Result<bool>> do_go(std::uint32_t option, std::string payload);
  [[nodiscard]] Task<Result<bool>> do_start_tls(std::string payload);
  [[nodiscard]] Task<Result<bool>> do_meta_context(std::uint32_t option, std::string payload);
  [[nodiscard]] const Export* find_export(std::string_view name) const;

  /// A context a client has chosen.
  struct Chosen {
    std::uint32_t id;
    std::shared_ptr<MetaContext> context;  ///< nothing: base:allocation
  };

  // session.cpp
  struct Request {
    RequestHeader header;
    Buffer data;
  };
  /// What went wrong with one request, for its client.
  struct Failure {
    std::uint32_t error;
    std::string message;
  };
  [[nodiscard]] static Failure failure_of(const Error& error);
  [[nodiscard]] Task<Result<void>> transmit();
  /// Whether there is a request; false at the orderly end.
  [[nodiscard]] Task<Result<bool>> next_request(Request& request);
  [[nodiscard]] Task<void> handle(Request request);
  [[nodiscard]] std::optional<Failure> check(const RequestHeader& header) const;
  [[nodiscard]] Task<Result<void>> perform(const Request& request);
  [[nodiscard]] Task<void> reply_read(Request& request);
  [[nodiscard]] Task<void> reply_status(const RequestHeader& header);
  [[nodiscard]] Task<void> reply_done(const RequestHeader& header);
  [[nodiscard]] Task<void> reply_failure(const RequestHeader& header, Failure failure);
  [[nodiscard]] Task<Result<std::string>> extents(const RequestHeader& header, Chosen chosen);
  [[nodiscard]] Task<Result<MetaContext::Extent>> extent(Chosen chosen, std::uint64_t offset,
                                                         std::uint64_t bytes);

  Ring& ring_;
  const std::vector<Export>& exports_;
  const ServerOptions& options_;
  SocketStream socket_;
  std::unique_ptr<TlsStream> tls_;
  Input in_;
  Output out_;
  Ring::Operation* handshake_timer_ = nullptr;
  Gate timers_;
  bool timed_out_ = false;
  bool fixed_newstyle_ = false;
  bool no_zeroes_ = false;
  bool structured_ = false;
  const Export* export_ = nullptr;
  const Export* chosen_for_ = nullptr;
  std::vector<Chosen> chosen_;
  BufferPool buffers_;
  Gate requests_;
  std::size_t under_way_ = 0;
  std::uint64_t request_bytes_ = 0;
  WaitQueue request_done_;
};

}  // namespace whistler::nbd
