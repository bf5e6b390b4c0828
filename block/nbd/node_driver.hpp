// "driver: nbd" among the drivers an image may name.
#pragma once

#include <memory>
#include <string>

#include "block/nbd/tls.hpp"
#include "block/node.hpp"

namespace whistler::nbd {

class Client;

/// For "tls-creds=ID": an object the caller has defined. Before any image is opened.
void register_credentials(const std::string& id, std::shared_ptr<const TlsCredentials> credentials);

[[nodiscard]] Result<void> parse_nbd_filename(const std::string& filename, Options& options);
[[nodiscard]] Task<Result<std::unique_ptr<BlockDevice>>> open_nbd(Ring& ring, Options& options,
                                                                  NodeFlags flags, Node& node);
/// Ends a connection in an orderly way.
[[nodiscard]] Task<void> discard_client(std::unique_ptr<Client> client);

}  // namespace whistler::nbd
