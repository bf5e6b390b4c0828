// The objects of one run (--object): secrets, TLS credentials and names let in; options name them by their
// ids.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "block/nbd/tls.hpp"

namespace whistler::tools {

/// The secrets defined so far, by id: what they are once read and decoded. As in QEMU they belong to the
/// whole run, whichever image uses them.
[[nodiscard]] const std::map<std::string, std::string>& secrets();

/// Credentials for a server or a client; the message is the reason alone.
[[nodiscard]] Result<std::shared_ptr<const whistler::nbd::TlsCredentials>> find_credentials(
    const std::string& id, whistler::nbd::TlsSide side);
/// The distinguished name an authz-simple object lets in.
[[nodiscard]] Result<std::string> find_identity(const std::string& id);

/// Takes the argument of --object: "secret,id=...,data=...|file=...[,format=raw|base64][,keyid=,iv=]",
/// "tls-creds-x509|tls-creds-psk,id=...,dir=...,endpoint=client|server,...",
/// "authz-simple,id=...,identity=...", or the same as JSON. A client's credentials may be named by nbd nodes
/// from then on. Errors are QEMU's.
[[nodiscard]] Result<void> define_object(const std::string& text);

}  // namespace whistler::tools
