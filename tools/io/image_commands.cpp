// Commands about the image as a whole: flush, discard, truncate, length, info, alloc, map.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "tools/img/size_change.hpp"
#include "tools/io/command.hpp"
#include "tools/io/image_info.hpp"
#include "tools/io/numbers.hpp"
#include "tools/io/report.hpp"
#include "tools/io/requests.hpp"

namespace whistler::tools::io {

bool flush_command(Session& session, Words& /*words*/, const Command& /*command*/) {
  return session.wait(session.device().flush()).has_value();
}

bool discard_command(Session& session, Words& words, const Command& command) {
  bool machine_readable = false;
  bool quiet = false;
  for (int option = 0; (option = words.next_option("Cq")) != -1;) {
    switch (option) {
      case 'C': machine_readable = true; break;
      case 'q': quiet = true; break;
      default: return usage(command);
    }
  }
  if (words.left() != 2) {
    return usage(command);
  }
  const auto offset = parse_bytes(session, words.operand(0));
  if (!offset) {
    return false;
  }
  const auto bytes = parse_bytes(session, words.operand(1));
  if (!bytes) {
    return false;
  }
  if (*bytes > kLongestRequest) {
    fmt::print("length cannot exceed {}, given {}\n", kLongestRequest, words.operand(1));
    return false;
  }
  const auto begin = Clock::now();
  if (const auto done = session.wait(discard_range(session.device(), *offset, *bytes)); !done) {
    print_failure("discard", done.error());
    return false;
  }
  if (!quiet) {
    print_report({"discard", *offset, *bytes, begin, machine_readable});
  }
  return true;
}

bool truncate_command(Session& session, Words& words, const Command& command) {
  auto mode = std::optional(Preallocation::kOff);
  for (int option = 0; (option = words.next_option("m:")) != -1;) {
    if (option != 'm') {
      return usage(command);
    }
    mode = parse_preallocation(Words::value());
    if (!mode) {
      session.complain(fmt::format("Invalid preallocation mode '{}'", Words::value()));
      return false;
    }
  }
  if (words.left() < 1) {
    return usage(command);
  }
  const auto size = parse_bytes(session, words.operand(0));
  if (!size) {
    return false;
  }
  const auto resized = session.wait(change_size(session.device(), {session.image().format, *size, *mode}));
  if (!resized) {
    session.complain(resized.error().message);
    return false;
  }
  return true;
}

bool length_command(Session& session, Words& /*words*/, const Command& /*command*/) {
  fmt::print("{}\n", size_text(static_cast<double>(session.device().size())));
  return true;
}

bool info_command(Session& session, Words& /*words*/, const Command& /*command*/) {
  return print_info(session.ring(), session.image());
}

namespace {

/// A stretch of the disk that is, or is not, allocated in this image.
struct Stretch {
  std::uint64_t bytes = 0;
  bool allocated = false;
};

/// The stretch at `offset`, which must lie within the disk.
Result<Stretch> stretch_at(Session& session, std::uint64_t offset, std::uint64_t most) {
  Stretch stretch;
  while (stretch.bytes < most) {
    const auto status =
        session.wait(session.device().block_status(offset + stretch.bytes, most - stretch.bytes));
    if (!status) {
      return std::unexpected(status.error());
    }
    const bool allocated = is_allocated(session.image(), *status);
    if (stretch.bytes != 0 && allocated != stretch.allocated) {
      break;
    }
    stretch.allocated = allocated;
    stretch.bytes += status->bytes;
  }
  return stretch;
}

}  // namespace

bool alloc_command(Session& session, Words& words, const Command& /*command*/) {
  const auto start = parse_bytes(session, words[1]);
  if (!start) {
    return false;
  }
  std::uint64_t count = 512;
  if (words.count() == 3) {
    const auto given = parse_bytes(session, words[2]);
    if (!given) {
      return false;
    }
    count = *given;
  }
  const auto size = session.device().size();
  count = *start < size ? std::min(count, size - *start) : 0;
  std::uint64_t allocated = 0;
  for (std::uint64_t done = 0; done < count;) {
    const auto stretch = stretch_at(session, *start + done, count - done);
    if (!stretch) {
      fmt::print("is_allocated failed: {}\n", std::strerror(errno_of(stretch.error())));
      return false;
    }
    done += stretch->bytes;
    allocated += stretch->allocated ? stretch->bytes : 0;
  }
  fmt::print("{}/{} bytes allocated at offset {}\n", allocated, count,
             size_text(static_cast<double>(*start)));
  return true;
}

bool map_command(Session& session, Words& /*words*/, const Command& /*command*/) {
  const auto size = session.device().size();
  for (std::uint64_t offset = 0; offset < size;) {
    const auto stretch = stretch_at(session, offset, size - offset);
    if (!stretch) {
      session.complain("Failed to get allocation status");
      return false;
    }
    fmt::print("{} ({:#x}) bytes {} at offset {} ({:#x})\n", size_text(static_cast<double>(stretch->bytes)),
               stretch->bytes, stretch->allocated ? "    allocated" : "not allocated",
               size_text(static_cast<double>(offset)), offset);
    offset += stretch->bytes;
  }
  return true;
}

}  // namespace whistler::tools::io
