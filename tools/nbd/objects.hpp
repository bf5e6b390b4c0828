// --object: TLS credentials and who is let in.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "block/nbd/tls.hpp"

namespace whistler::tools::nbd {

class Objects {
 public:
  /// "TYPE,id=ID,key=value,...".
  [[nodiscard]] Result<void> add(const std::string& text);
  /// For a server or a client; the message is the reason alone.
  [[nodiscard]] Result<std::shared_ptr<const whistler::nbd::TlsCredentials>> credentials(
      const std::string& id, whistler::nbd::TlsSide side) const;
  /// The distinguished name an authz-simple object lets in.
  [[nodiscard]] Result<std::string> identity(const std::string& id) const;

 private:
  using Properties = std::map<std::string, std::string>;
  [[nodiscard]] Result<void> add_secret(const std::string& id, const Properties& properties);
  [[nodiscard]] Result<void> add_credentials(const std::string& id, const std::string& type,
                                             const Properties& properties);

  std::map<std::string, std::shared_ptr<const whistler::nbd::TlsCredentials>> credentials_;
  std::map<std::string, std::string> identities_;
  std::map<std::string, std::string> secrets_;
};

}  // namespace whistler::tools::nbd
