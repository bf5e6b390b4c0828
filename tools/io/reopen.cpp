// reopen: the open image with other options.
#include <fmt/format.h>

#include "tools/io/command.hpp"
#include "tools/io/open_image.hpp"

namespace whistler::tools::io {

bool reopen_command(Session& session, Words& words, const Command& command) {
  auto request = session.image().request;
  bool mode_given = false;
  for (int option = 0; (option = words.next_option("c:o:rw")) != -1;) {
    switch (option) {
      case 'c': {
        if (!take_cache(session, Words::value(), request)) {
          return false;
        }
        break;
      }
      case 'o': request.options.emplace_back(Words::value()); break;
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
  return session.reopen(std::move(request));
}

}  // namespace whistler::tools::io
