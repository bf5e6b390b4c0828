// The PC without CPUs, driven over a socket by a qtest client.
#pragma once

#include <string>

#include "vmm/config/description.hpp"
#include "vmm/machine.hpp"

namespace whistler {

/// Runs until SIGTERM or SIGINT (status 0), or until a client it connected to goes away (0). `endpoint` is
/// "unix:PATH", to connect, or "unix:PATH,server", to listen. The signals must be blocked. Main thread.
[[nodiscard]] Outcome run_qtest(Description description, const std::string& endpoint);

}  // namespace whistler
