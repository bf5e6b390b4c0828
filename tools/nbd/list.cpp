#include "tools/nbd/list.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdio>

#include "block/nbd/client.hpp"
#include "tools/objects.hpp"

namespace whistler::tools::nbd {

namespace {

void print_flags(std::uint16_t flags) {
  constexpr std::array<const char*, 11> kNames = {"readonly", "flush",  "fua",      "rotational",
                                                  "trim",     "zeroes", "df",       "multi",
                                                  "resize",   "cache",  "fast-zero"};
  fmt::print("  flags: {:#x} (", flags);
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if ((flags >> (i + 1) & 1U) != 0) {
      fmt::print(" {}", kNames[i]);
    }
  }
  fmt::print(" )\n");
}

void print_export(const whistler::nbd::ExportInfo& info) {
  fmt::print(" export: '{}'\n", info.name);
  if (!info.description.empty()) {
    fmt::print("  description: {}\n", info.description);
  }
  if ((info.flags & whistler::nbd::kHasFlags) != 0) {
    fmt::print("  size:  {}\n", info.bytes);
    print_flags(info.flags);
  }
  if (info.min_block != 0) {
    fmt::print("  min block: {}\n  opt block: {}\n  max block: {}\n", info.min_block, info.preferred_block,
               info.max_block);
  }
  if (!info.contexts.empty()) {
    fmt::print("  available meta contexts: {}\n", info.contexts.size());
    for (const auto& context : info.contexts) {
      fmt::print("   {}\n", context);
    }
  }
}

}  // namespace

int list_exports(const Call& call, const Options& options) {
  whistler::nbd::ClientOptions client;
  if (!options.socket.empty()) {
    client.address.socket = options.socket;
  } else {
    client.address.host = options.bind.empty() ? "0.0.0.0" : options.bind;
    client.address.port = options.port.empty() ? "10809" : options.port;
  }
  client.tls_hostname = options.tls_hostname;
  if (!options.tls_creds.empty()) {
    auto credentials = find_credentials(options.tls_creds, whistler::nbd::TlsSide::kClient);
    if (!credentials) {
      complain(call, "Failed to get TLS creds: " + credentials.error().message);
      return 1;
    }
    client.tls = std::move(*credentials);
  }
  auto ring = Ring::create_for_tool();
  if (!ring) {
    complain(call, ring.error().message);
    return 1;
  }
  const auto exports = sync_wait(**ring, whistler::nbd::list_exports(**ring, std::move(client)));
  if (!exports) {
    complain(call, exports.error().message);
    return 1;
  }
  fmt::print("exports available: {}\n", exports->size());
  for (const auto& each : *exports) {
    print_export(each);
  }
  return 0;
}

}  // namespace whistler::tools::nbd
