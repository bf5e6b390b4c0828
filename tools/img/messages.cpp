#include "tools/img/messages.hpp"

#include <cerrno>
#include <cstring>

namespace whistler::tools {

namespace {

int stand_in(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid: return EINVAL;
    case ErrorCode::kNotFound: return ENOENT;
    case ErrorCode::kExists: return EEXIST;
    case ErrorCode::kPermission: return EACCES;
    case ErrorCode::kBusy: return EBUSY;
    case ErrorCode::kUnsupported: return ENOTSUP;
    case ErrorCode::kCorrupt:
    case ErrorCode::kIo: return EIO;
    case ErrorCode::kNoSpace: return ENOSPC;
    case ErrorCode::kCancelled: return ECANCELED;
  }
  return EIO;
}

}  // namespace

int errno_of(const Error& error) { return error.sys_errno != 0 ? error.sys_errno : stand_in(error.code); }

std::string reason_of(const Error& error) { return std::strerror(errno_of(error)); }

}  // namespace whistler::tools
