// open, close, reopen.
#include <fmt/format.h>

#include "tools/io/command.hpp"
#include "tools/io/open_image.hpp"

namespace whistler::tools::io {

bool open_command(Session& session, Words& words, const Command& command) {
  OpenRequest request;
  for (int option = 0; (option = words.next_option("snCro:ki:t:d:U")) != -1;) {
    switch (option) {
      case 's': request.snapshot = true; break;
      case 'n': request.cache = CacheMode::kNone; break;
      case 'C': request.copy_on_read = true; break;
      case 'r': request.read_only = true; break;
      case 'k': request.native_aio = true; break;
      case 'U': request.force_share = true; break;
      case 'o': request.options.emplace_back(Words::value()); break;
      case 't':
        if (!take_cache(session, Words::value(), request)) {
          return false;
        }
        break;
      case 'd':
        if (!take_discard(session, Words::value(), request)) {
          return false;
        }
        break;
      case 'i':
        if (!take_aio(session, Words::value(), request)) {
          return false;
        }
        break;
      default: return usage(command);
    }
  }
  if (words.left() == 1) {
    request.name = words.operand(0);
    request.named = true;
  } else if (words.left() != 0 || request.options.empty()) {
    return usage(command);
  }
  return session.open(std::move(request));
}

bool close_command(Session& session, Words& /*words*/, const Command& /*command*/) {
  session.close();
  return true;
}

}  // namespace whistler::tools::io
