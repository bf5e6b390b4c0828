// readv and writev: a buffer in pieces, waited for.
#include <fmt/format.h>

#include <algorithm>

#include "tools/io/command.hpp"
#include "tools/io/numbers.hpp"
#include "tools/io/report.hpp"
#include "tools/io/requests.hpp"

namespace whistler::tools::io {

namespace {

/// OFFSET and the lengths behind it.
struct Operands {
  std::uint64_t offset;
  Lengths lengths;
};

std::optional<Operands> parse_operands(Session& session, Words& words) {
  const auto offset = parse_bytes(session, words.operand(0));
  if (!offset) {
    return std::nullopt;
  }
  std::vector<const char*> rest;
  for (int number = 1; number < words.left(); ++number) {
    rest.push_back(words.operand(number));
  }
  auto lengths = parse_lengths(session, rest);
  if (!lengths) {
    return std::nullopt;
  }
  return Operands{*offset, std::move(*lengths)};
}

}  // namespace

bool readv_command(Session& session, Words& words, const Command& command) {
  bool machine_readable = false;
  bool quiet = false;
  bool show = false;
  std::optional<std::uint8_t> pattern;
  for (int option = 0; (option = words.next_option("CP:qv")) != -1;) {
    switch (option) {
      case 'C': machine_readable = true; break;
      case 'q': quiet = true; break;
      case 'v': show = true; break;
      case 'P':
        pattern = parse_pattern(Words::value());
        if (!pattern) {
          return false;
        }
        break;
      default: return usage(command);
    }
  }
  if (words.left() < 2) {
    return usage(command);
  }
  const auto operands = parse_operands(session, words);
  if (!operands) {
    return false;
  }
  const auto vector = make_vector(session, operands->lengths, 0xab);
  const auto begin = Clock::now();
  if (const auto read = session.wait(read_range(session.device(), operands->offset, vector.pieces)); !read) {
    print_failure("readv", read.error());
    return false;
  }
  const auto bytes = vector.buffer.bytes();
  bool ok = true;
  if (pattern &&
      std::any_of(bytes.begin(), bytes.end(), [&](std::uint8_t byte) { return byte != *pattern; })) {
    fmt::print("Pattern verification failed at offset {}, {} bytes\n", operands->offset, bytes.size());
    ok = false;
  }
  if (!quiet) {
    if (show) {
      dump(bytes, operands->offset);
    }
    print_report({"read", operands->offset, bytes.size(), begin, machine_readable});
  }
  return ok;
}

bool writev_command(Session& session, Words& words, const Command& command) {
  bool machine_readable = false;
  bool quiet = false;
  WriteFlags flags;
  std::uint8_t pattern = 0xcd;
  for (int option = 0; (option = words.next_option("CfqP:")) != -1;) {
    switch (option) {
      case 'C': machine_readable = true; break;
      case 'f': flags.fua = true; break;
      case 'q': quiet = true; break;
      case 'P': {
        const auto given = parse_pattern(Words::value());
        if (!given) {
          return false;
        }
        pattern = *given;
        break;
      }
      default: return usage(command);
    }
  }
  if (words.left() < 2) {
    return usage(command);
  }
  const auto operands = parse_operands(session, words);
  if (!operands) {
    return false;
  }
  const auto vector = make_vector(session, operands->lengths, pattern);
  const auto begin = Clock::now();
  if (const auto written =
          session.wait(write_range(session.device(), operands->offset, vector.pieces, flags));
      !written) {
    print_failure("writev", written.error());
    return false;
  }
  if (!quiet) {
    print_report({"wrote", operands->offset, operands->lengths.bytes, begin, machine_readable});
  }
  return true;
}

}  // namespace whistler::tools::io
