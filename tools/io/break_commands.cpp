// break, remove_break, resume, wait_break: requests held up on purpose, by a blkdebug layer.
#include <fmt/format.h>

#include <cstring>

#include "block/blkdebug.hpp"
#include "tools/io/command.hpp"
#include "tools/io/report.hpp"

namespace whistler::tools::io {

namespace {

/// The uppermost blkdebug layer of the image; null if it has none.
BlkdebugDevice* blkdebug_of(const OpenedImage& image) {
  for (const auto* node = image.node.get(); node != nullptr; node = node->file.get()) {
    if (auto* const found = dynamic_cast<BlkdebugDevice*>(node->device)) {
      return found;
    }
  }
  return nullptr;
}

Result<void> without_blkdebug() { return fail(ErrorCode::kUnsupported, "the image has no blkdebug layer"); }

bool report(const Result<void>& done, std::string_view what) {
  if (!done) {
    fmt::print("Could not {}: {}\n", what, std::strerror(errno_of(done.error())));
  }
  return done.has_value();
}

}  // namespace

bool break_command(Session& session, Words& words, const Command& /*command*/) {
  auto* const layer = blkdebug_of(session.image());
  return report(layer != nullptr ? layer->add_breakpoint(words[1], words[2]) : without_blkdebug(),
                "set breakpoint");
}

bool remove_break_command(Session& session, Words& words, const Command& /*command*/) {
  auto* const layer = blkdebug_of(session.image());
  return report(layer != nullptr ? layer->remove_breakpoint(words[1]) : without_blkdebug(),
                fmt::format("remove breakpoint {}", words[1]));
}

bool resume_command(Session& session, Words& words, const Command& /*command*/) {
  auto* const layer = blkdebug_of(session.image());
  return report(layer != nullptr ? layer->resume(words[1]) : without_blkdebug(), "resume request");
}

bool wait_break_command(Session& session, Words& words, const Command& /*command*/) {
  const auto* const layer = blkdebug_of(session.image());
  while (layer != nullptr && !layer->is_suspended(words[1])) {
    if (session.ring().in_flight() == 0) {
      fmt::print("no request can come to the breakpoint {} any more\n", words[1]);
      return false;  // waiting on would be for ever
    }
    session.turn(true);
  }
  return true;
}

}  // namespace whistler::tools::io
