// The socket that VNC clients connect to. Only for the files of this folder.
#pragma once

#include <string>

#include "base/result.hpp"

namespace whistler {

/// A listening socket, closed with the object; the file of a "unix:" socket goes with it.
struct VncListener {
  VncListener() = default;
  VncListener(VncListener&& other) noexcept;
  VncListener& operator=(VncListener&&) = delete;
  ~VncListener();

  int fd = -1;
  unsigned port = 0;
  std::string address;    ///< for a person, with the port
  std::string unix_path;  ///< empty for TCP
};

/// `listen` and `port` as in VncConfig, and the errors of VncServer::start().
Result<VncListener> vnc_listen(const std::string& listen, int port);

}  // namespace whistler
