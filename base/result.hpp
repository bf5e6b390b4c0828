// The one way a call says that it did not work: a value or an Error, never an exception.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace whistler {

/// What kind of thing went wrong; callers branch on this, people read Error::message.
enum class ErrorCode : std::uint8_t {
  kInvalid,      ///< an argument, key or field has a value that is not allowed
  kNotFound,     ///< a file, key or object does not exist
  kExists,       ///< it exists already
  kPermission,   ///< the host refuses access
  kBusy,         ///< somebody else holds it (a locked image, a taken port)
  kUnsupported,  ///< understood, but not offered here
  kCorrupt,      ///< data contradicts itself or its format
  kIo,           ///< the host failed to read or write
  kNoSpace,      ///< the host's disk or quota is full
  kCancelled,    ///< given up on request
};

/// An error: its kind, the host's errno where there is one (else 0), and one line for a person that
/// names the thing, the place and the reason.
struct [[nodiscard]] Error {
  ErrorCode code = ErrorCode::kInvalid;
  int sys_errno = 0;
  std::string message;
  /// What QEMU's tools say in this case, where that is known: without the name of the image, which they put
  /// before it themselves. Empty otherwise.
  std::string brief = {};

  /// The same error with "context: " put in front of the message.
  Error within(std::string_view context) const;
  bool operator==(const Error&) const = default;
};

template <typename T = void>
using Result = std::expected<T, Error>;

/// Makes the failing side of any Result.
[[nodiscard]] std::unexpected<Error> fail(ErrorCode code, std::string message);
[[nodiscard]] std::unexpected<Error> fail(ErrorCode code, std::string message, std::string brief);

/// `text` for a message, where it comes from an image, a guest or a peer: it may not disturb a terminal, nor
/// fill it.
[[nodiscard]] std::string printable(std::string_view text);

/// The failing side for a host errno: `what` says what was tried; the text of errno is appended.
[[nodiscard]] std::unexpected<Error> fail_errno(int errnum, std::string_view what);

/// The kind an errno belongs to.
[[nodiscard]] ErrorCode code_from_errno(int errnum);

}  // namespace whistler
