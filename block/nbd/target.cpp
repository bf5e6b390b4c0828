#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "block/nbd/address.hpp"
#include "block/nbd/protocol.hpp"

namespace whistler::nbd {

namespace {

std::unexpected<Error> invalid(std::string message) { return fail(ErrorCode::kInvalid, std::move(message)); }

int hex_digit(char digit) {
  if (digit >= '0' && digit <= '9') {
    return digit - '0';
  }
  const char lower = static_cast<char>(digit | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

std::string percent_decode(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
      decoded += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

/// "HOST", "HOST:PORT", "[V6]" and "[V6]:PORT"; nothing if it is none of these.
Result<Address> split_host(std::string_view text) {
  Address address;
  address.port = std::to_string(kDefaultPort);
  std::size_t end = 0;
  if (text.starts_with('[')) {
    end = text.find(']');
    if (end == std::string_view::npos) {
      return invalid("No valid URL specified");
    }
    address.host = text.substr(1, end - 1);
    ++end;
  } else {
    end = std::min(text.find(':'), text.size());
    address.host = percent_decode(text.substr(0, end));
  }
  if (end < text.size()) {
    if (text[end] != ':') {
      return invalid("No valid URL specified");
    }
    if (end + 1 < text.size()) {
      address.port = text.substr(end + 1);
    }
  }
  return address;
}

/// What follows the scheme of a URL.
Result<Target> parse_url(std::string_view rest, bool is_unix) {
  Target target;
  const auto hash = rest.find('#');
  rest = rest.substr(0, hash);
  const auto question = rest.find('?');
  const auto query = question == std::string_view::npos ? std::string_view() : rest.substr(question + 1);
  rest = rest.substr(0, question);
  const auto slash = std::min(rest.find('/'), rest.size());
  auto authority = rest.substr(0, slash);
  if (const auto at = authority.rfind('@'); at != std::string_view::npos) {
    authority.remove_prefix(at + 1);
  }
  auto path = rest.substr(slash);
  if (path.starts_with('/')) {
    path.remove_prefix(1);  // further ones belong to the name
  }
  target.export_name = percent_decode(path);
  if (is_unix) {
    constexpr std::string_view kSocket = "socket=";
    if (!authority.empty() || !query.starts_with(kSocket) || query.find('&') != std::string_view::npos) {
      return invalid("No valid URL specified");
    }
    target.address.socket = percent_decode(query.substr(kSocket.size()));
    return target;
  }
  if (authority.empty() || !query.empty()) {
    return invalid("No valid URL specified");
  }
  auto address = split_host(authority);
  if (!address) {
    return std::unexpected(address.error());
  }
  if (address->host.empty()) {
    return invalid("No valid URL specified");
  }
  target.address = *address;
  return target;
}

/// What follows "nbd:" in the names of old.
Result<Target> parse_old(std::string rest) {
  Target target;
  constexpr std::string_view kExport = ":exportname=";
  if (const auto at = rest.find(kExport); at != std::string::npos) {
    target.export_name = rest.substr(at + kExport.size());
    rest.resize(at);
  }
  if (rest.empty()) {
    return invalid("NBD server address missing");
  }
  if (rest.starts_with("unix:")) {
    target.address.socket = rest.substr(5);
    return target;
  }
  std::size_t colon = 0;
  if (rest.starts_with('[')) {
    colon = rest.find(']');
    if (colon == std::string::npos || colon + 1 >= rest.size() || rest[colon + 1] != ':') {
      return invalid(fmt::format("error parsing address '{}'", rest));
    }
    target.address.host = rest.substr(1, colon - 1);
    ++colon;
  } else {
    colon = rest.find(':');
    if (colon == std::string::npos || colon == 0) {
      return invalid(fmt::format("error parsing address '{}'", rest));
    }
    target.address.host = rest.substr(0, colon);
  }
  target.address.port = rest.substr(colon + 1);
  return target;
}

}  // namespace

std::string Target::url() const {
  const std::string path = export_name.empty() ? "" : "/" + export_name;
  if (address.is_unix()) {
    return fmt::format("nbd+unix://{}?socket={}", path, address.socket);
  }
  return fmt::format("nbd://{}{}", address.text(), path);
}

bool is_target(const std::string& name) {
  return name.starts_with("nbd:") || name.starts_with("nbd+") || name.starts_with("nbds:") ||
         name.starts_with("nbds+");
}

Result<Target> parse_target(const std::string& name) {
  const auto scheme_end = name.find("://");
  if (scheme_end == std::string::npos) {
    if (!name.starts_with("nbd:")) {
      return invalid("File name string for new protocols must start with \"nbd:\"");
    }
    return parse_old(name.substr(4));
  }
  const std::string_view scheme(name.data(), scheme_end);
  const bool is_unix = scheme == "nbd+unix" || scheme == "nbds+unix";
  const bool tls = scheme.starts_with("nbds");
  if (!is_unix && scheme != "nbd" && scheme != "nbds" && scheme != "nbd+tcp" && scheme != "nbds+tcp") {
    return invalid(fmt::format("Unknown protocol '{}'", scheme));
  }
  auto target = parse_url(std::string_view(name).substr(scheme_end + 3), is_unix);
  if (target) {
    target->tls = tls;
  }
  return target;
}

}  // namespace whistler::nbd
