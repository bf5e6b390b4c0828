#include "base/result.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace whistler {

Error Error::within(std::string_view context) const {
  return {code, sys_errno, fmt::format("{}: {}", context, message), brief};
}

std::unexpected<Error> fail(ErrorCode code, std::string message) {
  return std::unexpected(Error{code, 0, std::move(message)});
}

std::unexpected<Error> fail(ErrorCode code, std::string message, std::string brief) {
  return std::unexpected(Error{code, 0, std::move(message), std::move(brief)});
}

std::unexpected<Error> fail_errno(int errnum, std::string_view what) {
  return std::unexpected(Error{code_from_errno(errnum), errnum,
                               fmt::format("{}: {}", what, std::generic_category().message(errnum))});
}

std::string printable(std::string_view text) {
  constexpr std::size_t kMost = 512;
  std::string clean(text.substr(0, kMost));
  std::replace_if(clean.begin(), clean.end(), [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; }, '?');
  return clean;
}

ErrorCode code_from_errno(int errnum) {
  switch (errnum) {
    case ENOENT: return ErrorCode::kNotFound;
    case EEXIST: return ErrorCode::kExists;
    case EACCES:
    case EPERM:
    case EROFS: return ErrorCode::kPermission;
    case EAGAIN:
    case EBUSY:
    case EADDRINUSE:
    case ETXTBSY: return ErrorCode::kBusy;
    case EOPNOTSUPP:
    case ENOSYS: return ErrorCode::kUnsupported;
    case EINVAL:
    case EISDIR:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP: return ErrorCode::kInvalid;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return ErrorCode::kNoSpace;
    case ECANCELED: return ErrorCode::kCancelled;
    default: return ErrorCode::kIo;
  }
}

}  // namespace whistler
