// The two ends of a socket, as clients of the monitor are told of them. Only for the files of this folder.
#pragma once

#include "devices/vnc/vnc_server.hpp"

namespace whistler {

/// Empty where the host does not say.
[[nodiscard]] VncAddress local_address(int socket);
[[nodiscard]] VncAddress peer_address(int socket);

}  // namespace whistler
