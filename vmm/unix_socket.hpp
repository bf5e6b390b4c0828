// Unix stream sockets by path.
#pragma once

#include <string>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace whistler {

/// A non-blocking listening socket at `path`, only for this user. A stale socket nobody answers on is
/// replaced; one in use is kBusy; anything else of that name is kExists.
[[nodiscard]] Result<UniqueFd> listen_unix(const std::string& path);
/// Whether listen_unix() has a chance, as far as the file system tells: nothing is created, nobody is asked.
[[nodiscard]] Result<void> check_unix_path(const std::string& path);
/// A blocking connection to `path`.
[[nodiscard]] Result<UniqueFd> connect_unix(const std::string& path);

}  // namespace whistler
