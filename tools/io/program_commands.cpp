// Commands about the program rather than an image: help, quit, sleep, sigraise, abort.
#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/image.hpp"
#include "tools/io/command.hpp"
#include "tools/io/numbers.hpp"

namespace whistler::tools::io {

bool help_command(Session& /*session*/, Words& words, const Command& /*command*/) {
  if (words.count() == 1) {
    for (const auto& each : all_commands()) {
      usage(each);
    }
    fmt::print("\nUse 'help commandname' for extended help.\n");
    return true;
  }
  const auto* const found = find_command(words[1]);
  if (found == nullptr) {
    fmt::print("command {} not found\n", words[1]);
    return false;
  }
  usage(*found);
  if (found->help != nullptr) {
    fmt::print("{}", found->help);
  }
  return true;
}

bool quit_command(Session& session, Words& /*words*/, const Command& /*command*/) {
  session.set_quit();
  return true;
}

bool sleep_command(Session& session, Words& words, const Command& /*command*/) {
  char* end = nullptr;
  errno = 0;
  const long milliseconds = std::strtol(words[1], &end, 0);
  if (*end != '\0' || errno != 0 || milliseconds < 0) {
    fmt::print("{} is not a valid number\n", words[1]);
    return false;
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  while (std::chrono::steady_clock::now() < until) {
    session.turn(false);  // what is in flight goes on meanwhile
    const auto left = until - std::chrono::steady_clock::now();
    std::this_thread::sleep_for(std::min<std::chrono::steady_clock::duration>(
        left, session.busy() ? std::chrono::milliseconds(1) : std::chrono::hours(1)));
  }
  session.turn(false);
  return true;
}

bool sigraise_command(Session& session, Words& words, const Command& /*command*/) {
  const auto signal = parse_bytes(session, words[1]);
  if (!signal) {
    return false;
  }
  if (*signal > NSIG) {
    fmt::print("signal argument '{}' is too large to be a valid signal\n", words[1]);
    return false;
  }
  std::fflush(stdout);  // the signal may end the program at once
  static_cast<void>(std::raise(static_cast<int>(*signal)));
  return true;
}

/// As a crash amid writing leaves it: what is known of changes is not to be relied on.
bool abort_command(Session& session, Words& /*words*/, const Command& /*command*/) {
  if (session.is_open() && session.image().qcow2 != nullptr && !session.device().read_only()) {
    bool done = false;
    spawn(session.image().qcow2->bitmaps().leave_in_use(),
          [&](const Result<void>& /*kept*/) { done = true; });
    while (!done && session.ring().in_flight() != 0) {  // what hangs at a breakpoint stays
      session.ring().run_once(true);
    }
  }
  std::abort();
}

}  // namespace whistler::tools::io
