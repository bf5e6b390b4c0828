// "driver: nbd" among the drivers an image may name.
#include "block/nbd/node_driver.hpp"

#include <fmt/format.h>

#include <map>

#include "block/nbd/client.hpp"

namespace whistler::nbd {

namespace {

std::unexpected<Error> refuse(std::string message) { return fail(ErrorCode::kInvalid, std::move(message)); }

using Credentials = std::map<std::string, std::shared_ptr<const TlsCredentials>>;

Credentials& all_credentials() {
  static Credentials credentials;
  return credentials;
}

/// The option, which is taken out; nothing if it is not there.
std::optional<std::string> take(Options& options, const char* key) {
  auto text = option_text(options, key);
  if (text) {
    options.erase(key);
  }
  return text;
}

/// "server.type=..." and what belongs to it.
Result<Address> take_server(Options& options) {
  auto server = options["server"];
  options.erase("server");
  const auto type = take(server, "type");
  if (!type) {
    return refuse("Parameter 'type' is missing");
  }
  Address address;
  if (*type == "unix") {
    const auto path = take(server, "path");
    if (!path) {
      return refuse("Parameter 'path' is missing");
    }
    address.socket = *path;
  } else if (*type == "inet") {
    const auto host = take(server, "host");
    const auto port = take(server, "port");
    if (!host || !port) {
      return refuse(fmt::format("Parameter '{}' is missing", host ? "port" : "host"));
    }
    address.host = *host;
    address.port = *port;
    for (const auto* key : {"to", "ipv4", "ipv6", "keep-alive", "numeric"}) {
      server.erase(key);
    }
  } else if (*type == "vsock" || *type == "fd") {
    return fail(ErrorCode::kUnsupported, fmt::format("NBD over '{}' is not offered here", *type));
  } else {
    return refuse(fmt::format("Parameter 'type' does not accept value '{}'", *type));
  }
  if (!server.empty()) {
    return refuse(fmt::format("Parameter '{}' is unexpected", server.begin().key()));
  }
  return address;
}

Result<Address> take_address(Options& options) {
  const auto path = take(options, "path");
  const auto host = take(options, "host");
  const auto port = take(options, "port");
  const bool has_server = options.contains("server");
  if (path && host) {
    return refuse("path and host may not be used at the same time");
  }
  if (!host && port) {
    return refuse("port may not be used without host");
  }
  if (has_server && (path || host || port)) {
    return refuse("Cannot use 'server' and path/host/port at the same time");
  }
  if (has_server) {
    return take_server(options);
  }
  Address address;
  if (path) {
    address.socket = *path;
  } else if (host) {
    address.host = *host;
    address.port = port.value_or(std::to_string(kDefaultPort));
  } else {
    return refuse("NBD server address missing");
  }
  return address;
}

Result<std::chrono::seconds> take_seconds(Options& options, const char* key) {
  const auto text = take(options, key);
  if (!text) {
    return std::chrono::seconds(0);
  }
  const bool number =
      !text->empty() && text->size() < 10 && text->find_first_not_of("0123456789") == std::string::npos;
  if (!number) {
    return refuse(fmt::format("Parameter '{}' expects a number", key));
  }
  return std::chrono::seconds(std::stoul(*text));
}

Result<ClientOptions> client_options(Options& options, const NodeFlags& flags) {
  ClientOptions client;
  const auto address = take_address(options);
  const auto reconnect = take_seconds(options, "reconnect-delay");
  const auto open = take_seconds(options, "open-timeout");
  if (!address) {
    return std::unexpected(address.error());
  }
  if (!reconnect || !open) {
    return std::unexpected((reconnect ? open : reconnect).error());
  }
  client.address = *address;
  client.reconnect_delay = *reconnect;
  client.open_timeout = *open;
  client.read_only = flags.read_only;
  client.stop = flags.stop;
  client.let_go = flags.let_go;
  client.export_name = take(options, "export").value_or("");
  client.context = take(options, "x-dirty-bitmap").value_or("");
  client.tls_hostname = take(options, "tls-hostname").value_or("");
  if (const auto id = take(options, "tls-creds")) {
    const auto found = all_credentials().find(*id);
    if (found == all_credentials().end()) {
      return fail(ErrorCode::kNotFound, fmt::format("No TLS credentials with id '{}'", *id));
    }
    if (found->second->options().side != TlsSide::kClient) {
      return refuse("Expecting TLS credentials with a client endpoint");
    }
    client.tls = found->second;
  }
  if (client.export_name.size() > kMaxString) {
    return refuse("export name too long to send to server");
  }
  return client;
}

}  // namespace

void register_credentials(const std::string& id, std::shared_ptr<const TlsCredentials> credentials) {
  all_credentials()[id] = std::move(credentials);
}

Result<void> parse_nbd_filename(const std::string& filename, Options& options) {
  for (const auto* key : {"path", "host", "port"}) {
    if (options.contains(key)) {
      return refuse("host/port/path and file names may not be specified at the same time");
    }
  }
  const auto target = parse_target(filename);
  if (!target) {
    return std::unexpected(target.error());
  }
  if (target->address.is_unix()) {
    options["path"] = target->address.socket;
  } else {
    options["host"] = target->address.host;
    options["port"] = target->address.port;
  }
  if (!target->export_name.empty()) {
    options["export"] = target->export_name;
  }
  if (target->tls) {
    if (!options.contains("tls-creds")) {
      return refuse("a nbds:// name needs tls-creds=ID, and --object tls-creds-x509 or tls-creds-psk");
    }
  }
  return {};
}

Task<Result<std::unique_ptr<BlockDevice>>> open_nbd(Ring& ring, Options& options, NodeFlags flags,
                                                    Node& node) {
  auto client = client_options(options, flags);
  if (!client) {
    co_return std::unexpected(client.error());
  }
  auto opened = co_await Client::open(ring, std::move(*client));
  if (!opened) {
    co_return std::unexpected(opened.error());
  }
  if (!flags.read_only && (*opened)->read_only()) {
    co_await discard_client(std::move(*opened));
    co_return fail(ErrorCode::kPermission, "request for write access denied");
  }
  node.exact_filename = (*opened)->name();
  co_return std::unique_ptr<BlockDevice>(std::move(*opened));
}

Task<void> discard_client(std::unique_ptr<Client> client) { (void)co_await client->close(); }

}  // namespace whistler::nbd
