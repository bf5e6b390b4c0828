// break, remove_break, resume, wait_break: requests held up on purpose, by a blkdebug layer.
#include <fmt/format.h>

#include <cstring>

#include "tools/io/command.hpp"

namespace whistler::tools::io {

bool break_command(Session& /*session*/, Words& /*words*/, const Command& /*command*/) {
  fmt::print("Could not set breakpoint: {}\n", std::strerror(ENOTSUP));
  return false;
}

bool remove_break_command(Session& /*session*/, Words& words, const Command& /*command*/) {
  fmt::print("Could not remove breakpoint {}: {}\n", words[1], std::strerror(ENOTSUP));
  return false;
}

bool resume_command(Session& /*session*/, Words& /*words*/, const Command& /*command*/) {
  fmt::print("Could not resume request: {}\n", std::strerror(ENOTSUP));
  return false;
}

bool wait_break_command(Session& session, Words& /*words*/, const Command& /*command*/) {
  session.drain();
  return true;
}

}  // namespace whistler::tools::io
