// reopen: the open image with other options.
#include <fmt/format.h>

#include "tools/io/command.hpp"
#include "tools/io/open_image.hpp"

namespace whistler::tools::io {

namespace {

/// Turns -r/-w and -c into the options they stand for, so that they win over those of `open`.
bool add_modes(const Session& session, bool mode_given, bool cache_given, OpenRequest& request,
               Options& asked) {
  if (mode_given && asked.contains("read-only")) {
    session.complain("Cannot set both -r/-w and 'read-only'");
    return false;
  }
  if (mode_given) {
    asked["read-only"] = request.read_only;
  } else if (const auto read_only = option_flag(asked, "read-only", request.read_only)) {
    request.read_only = *read_only;
  }
  const auto cache = asked.find("cache");
  if (cache_given && cache != asked.end() && (cache->contains("direct") || cache->contains("no-flush"))) {
    session.complain("Cannot set both -c and the cache options");
    return false;
  }
  if (cache_given) {
    asked["cache"]["direct"] = is_direct(request.cache);
    asked["cache"]["no-flush"] = request.cache == CacheMode::kUnsafe;
  }
  return true;
}

}  // namespace

bool reopen_command(Session& session, Words& words, const Command& command) {
  auto request = session.image().request;
  Options asked = Options::object();
  bool mode_given = false;
  bool cache_given = false;
  for (int option = 0; (option = words.next_option("c:o:rw")) != -1;) {
    switch (option) {
      case 'c': {
        if (!take_cache(session, Words::value(), request)) {
          return false;
        }
        cache_given = true;
        break;
      }
      case 'o': {
        if (auto ok = add_options(session, Words::value(), asked); !ok) {
          session.complain(tool_text(ok.error()));
          return false;
        }
        break;
      }
      case 'r':
      case 'w':
        if (mode_given) {
          session.complain("Only one -r/-w option may be given");
          return false;
        }
        mode_given = true;
        request.read_only = option == 'r';
        break;
      default: return usage(command);
    }
  }
  if (words.left() != 0) {
    return usage(command);
  }
  if (!add_modes(session, mode_given, cache_given, request, asked)) {
    return false;
  }
  return session.reopen(std::move(request), asked);
}

}  // namespace whistler::tools::io
