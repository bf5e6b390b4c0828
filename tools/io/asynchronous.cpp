// aio_read, aio_write, aio_flush: requests that are begun now and reported when they have ended.
#include <fmt/format.h>

#include <algorithm>

#include "tools/io/command.hpp"
#include "tools/io/numbers.hpp"
#include "tools/io/report.hpp"
#include "tools/io/requests.hpp"

namespace whistler::tools::io {

namespace {

/// A request in flight, with all it needs until it is reported.
struct Request {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::optional<Vector> vector = {};
  bool machine_readable = false;
  bool quiet = false;
  bool show = false;
  std::optional<std::uint8_t> pattern = {};
  bool zeroes = false;
  bool unmap = false;
  bool fua = false;
  Clock::time_point begin = {};
};

void report_read(const Request& request, const Result<void>& result) {
  if (!result) {
    print_failure("readv", result.error());
    return;
  }
  const auto bytes = request.vector->buffer.bytes();
  if (request.pattern &&
      std::any_of(bytes.begin(), bytes.end(), [&](std::uint8_t byte) { return byte != *request.pattern; })) {
    fmt::print("Pattern verification failed at offset {}, {} bytes\n", request.offset, bytes.size());
  }
  if (!request.quiet) {
    if (request.show) {
      dump(bytes, request.offset);
    }
    print_report({"read", request.offset, request.bytes, request.begin, request.machine_readable});
  }
}

void report_write(const Request& request, const Result<void>& result) {
  if (!result) {
    print_failure("aio_write", result.error());
    return;
  }
  if (!request.quiet) {
    print_report({"wrote", request.offset, request.bytes, request.begin, request.machine_readable});
  }
}

/// Takes OFFSET and lengths from the words and gives the request its memory.
bool give_memory(Session& session, Words& words, Request& request, std::uint8_t fill) {
  const auto offset = parse_bytes(session, words.operand(0));
  if (!offset) {
    return false;
  }
  std::vector<const char*> rest;
  for (int number = 1; number < words.left(); ++number) {
    rest.push_back(words.operand(number));
  }
  const auto lengths = parse_lengths(session, rest);
  if (!lengths) {
    return false;
  }
  request.offset = *offset;
  request.bytes = lengths->bytes;
  request.vector.emplace(make_vector(session, *lengths, fill));
  return true;
}

}  // namespace

bool aio_read_command(Session& session, Words& words, const Command& command) {
  auto request = std::make_shared<Request>();
  for (int option = 0; (option = words.next_option("CP:iqv")) != -1;) {
    switch (option) {
      case 'C': request->machine_readable = true; break;
      case 'q': request->quiet = true; break;
      case 'v': request->show = true; break;
      case 'i': fmt::print("injecting invalid read request\n"); return true;
      case 'P':
        request->pattern = parse_pattern(Words::value());
        if (!request->pattern) {
          return false;
        }
        break;
      default: return usage(command);
    }
  }
  if (words.left() < 2) {
    return usage(command);
  }
  if (!give_memory(session, words, *request, 0xab)) {
    return false;
  }
  request->begin = Clock::now();
  session.start(read_range(session.device(), request->offset, request->vector->pieces),
                [request](const Result<void>& result) { report_read(*request, result); });
  return true;
}

namespace {

bool start_zeroes(Session& session, Words& words, const std::shared_ptr<Request>& request) {
  if (words.left() != 2) {
    fmt::print("-z supports only a single length parameter\n");
    return false;
  }
  const auto offset = parse_bytes(session, words.operand(0));
  if (!offset) {
    return false;
  }
  const auto bytes = parse_bytes(session, words.operand(1));
  if (!bytes) {
    return false;
  }
  request->offset = *offset;
  request->bytes = *bytes;
  session.start(
      zero_range(session.device(), *offset, *bytes, {.may_unmap = request->unmap, .fua = request->fua}),
      [request](const Result<void>& result) { report_write(*request, result); });
  return true;
}

}  // namespace

bool aio_write_command(Session& session, Words& words, const Command& command) {
  auto request = std::make_shared<Request>();
  std::uint8_t pattern = 0xcd;
  for (int option = 0; (option = words.next_option("CfiP:quz")) != -1;) {
    switch (option) {
      case 'C': request->machine_readable = true; break;
      case 'f': request->fua = true; break;
      case 'q': request->quiet = true; break;
      case 'u': request->unmap = true; break;
      case 'z': request->zeroes = true; break;
      case 'i': fmt::print("injecting invalid write request\n"); return true;
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
  request->begin = Clock::now();
  if (request->unmap && !request->zeroes) {
    fmt::print("-u requires -z to be specified\n");
    return false;
  }
  if (request->zeroes) {
    return start_zeroes(session, words, request);
  }
  if (!give_memory(session, words, *request, pattern)) {
    return false;
  }
  request->begin = Clock::now();
  session.start(
      write_range(session.device(), request->offset, request->vector->pieces, {.fua = request->fua}),
      [request](const Result<void>& result) { report_write(*request, result); });
  return true;
}

bool aio_flush_command(Session& session, Words& /*words*/, const Command& /*command*/) {
  session.drain();
  return true;
}

}  // namespace whistler::tools::io
