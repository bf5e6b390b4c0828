#include "block/nbd/protocol.hpp"

namespace whistler::nbd {

std::string_view option_name(std::uint32_t option) {
  switch (static_cast<Option>(option)) {
    case Option::kExportName: return "export name";
    case Option::kAbort: return "abort";
    case Option::kList: return "list";
    case Option::kStartTls: return "starttls";
    case Option::kInfo: return "info";
    case Option::kGo: return "go";
    case Option::kStructuredReply: return "structured reply";
    case Option::kListMetaContext: return "list meta context";
    case Option::kSetMetaContext: return "set meta context";
  }
  return option == 4 ? "peek" : "<unknown>";
}

}  // namespace whistler::nbd
