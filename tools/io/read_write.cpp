// read and write: one buffer, waited for.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tools/io/command.hpp"
#include "tools/io/numbers.hpp"
#include "tools/io/report.hpp"
#include "tools/io/requests.hpp"
#include "tools/io/special_writes.hpp"

namespace whistler::tools::io {

namespace {

bool sector_aligned(std::uint64_t value, const char* what) {
  if (value % 512 != 0) {
    fmt::print("{} is not a sector-aligned value for '{}'\n", value, what);
    return false;
  }
  return true;
}

struct ReadOptions {
  bool vm_state = false;
  bool machine_readable = false;
  bool quiet = false;
  bool show = false;
  std::optional<std::uint8_t> pattern = {};
  std::optional<std::uint64_t> pattern_bytes = {};
  std::uint64_t pattern_offset = 0;
  bool has_pattern_offset = false;
};

std::optional<ReadOptions> read_options(Session& session, Words& words, const Command& command) {
  ReadOptions options;
  for (int option = 0; (option = words.next_option("bCl:pP:qs:v")) != -1;) {
    switch (option) {
      case 'b': options.vm_state = true; break;
      case 'C': options.machine_readable = true; break;
      case 'q': options.quiet = true; break;
      case 'v': options.show = true; break;
      case 'p': break;
      case 'P':
        options.pattern = parse_pattern(Words::value());
        if (!options.pattern) {
          return std::nullopt;
        }
        break;
      case 'l':
        options.pattern_bytes = parse_bytes(session, Words::value());
        if (!options.pattern_bytes) {
          return std::nullopt;
        }
        break;
      case 's': {
        const auto offset = parse_bytes(session, Words::value());
        if (!offset) {
          return std::nullopt;
        }
        options.pattern_offset = *offset;
        options.has_pattern_offset = true;
        break;
      }
      default: usage(command); return std::nullopt;
    }
  }
  return options;
}

}  // namespace

bool read_command(Session& session, Words& words, const Command& command) {
  const auto options = read_options(session, words, command);
  if (!options) {
    return false;
  }
  if (words.left() != 2) {
    return usage(command);
  }
  const auto offset = parse_bytes(session, words.operand(0));
  if (!offset) {
    return false;
  }
  const auto count = parse_bytes(session, words.operand(1));
  if (!count) {
    return false;
  }
  if (*count > kLongestRequest) {
    fmt::print("length cannot exceed {}, given {}\n", kLongestRequest, words.operand(1));
    return false;
  }
  if (!options->pattern && (options->pattern_bytes || options->has_pattern_offset)) {
    return usage(command);
  }
  if (options->pattern_offset > *count ||
      options->pattern_bytes.value_or(0) > *count - options->pattern_offset) {
    fmt::print("pattern verification range exceeds end of read data\n");
    return false;
  }
  if (options->vm_state && (!sector_aligned(*offset, "offset") || !sector_aligned(*count, "count"))) {
    return false;
  }
  const auto begin = Clock::now();
  if (const auto within = options->vm_state ? Result<void>() : check_range(session.device(), *offset, *count);
      !within) {
    print_failure("read", within.error());  // before asking for the memory
    return false;
  }
  const Buffer buffer(session, *count, 0xab);
  const iovec piece{buffer.bytes().data(), buffer.bytes().size()};
  const auto read = options->vm_state ? session.wait(read_vm_state(session.image(), *offset, {&piece, 1}))
                                      : session.wait(read_range(session.device(), *offset, {&piece, 1}));
  if (!read) {
    print_failure("read", read.error());
    return false;
  }
  bool ok = true;
  if (options->pattern) {
    const auto wanted = options->pattern_bytes.value_or(*count - options->pattern_offset);
    const auto part = buffer.bytes().subspan(options->pattern_offset, wanted);
    const auto pattern = *options->pattern;
    if (std::any_of(part.begin(), part.end(), [=](std::uint8_t byte) { return byte != pattern; })) {
      fmt::print("Pattern verification failed at offset {}, {} bytes\n", *offset + options->pattern_offset,
                 wanted);
      ok = false;
    }
  }
  if (!options->quiet) {
    if (options->show) {
      dump(buffer.bytes(), *offset);
    }
    print_report({"read", *offset, *count, begin, options->machine_readable});
  }
  return ok;
}

namespace {

struct WriteOptions {
  bool vm_state = false;
  bool compressed = false;
  bool machine_readable = false;
  bool fua = false;
  bool no_fallback = false;
  bool quiet = false;
  bool unmap = false;
  bool zeroes = false;
  std::optional<std::uint8_t> pattern = {};
  const char* pattern_file = nullptr;
};

std::optional<WriteOptions> write_options(Words& words, const Command& command) {
  WriteOptions options;
  for (int option = 0; (option = words.next_option("bcCfnpP:qs:uz")) != -1;) {
    switch (option) {
      case 'b': options.vm_state = true; break;
      case 'c': options.compressed = true; break;
      case 'C': options.machine_readable = true; break;
      case 'f': options.fua = true; break;
      case 'n': options.no_fallback = true; break;
      case 'p': break;
      case 'q': options.quiet = true; break;
      case 'u': options.unmap = true; break;
      case 'z': options.zeroes = true; break;
      case 's': options.pattern_file = Words::value(); break;
      case 'P':
        options.pattern = parse_pattern(Words::value());
        if (!options.pattern) {
          return std::nullopt;
        }
        break;
      default: usage(command); return std::nullopt;
    }
  }
  return options;
}

/// Says which options do not go together, if any.
bool agree(const WriteOptions& options) {
  const char* complaint = nullptr;
  if (options.vm_state && options.zeroes) {
    complaint = "-b and -z cannot be specified at the same time";
  } else if (options.fua && (options.vm_state || options.compressed)) {
    complaint = "-f and -b or -c cannot be specified at the same time";
  } else if (options.no_fallback && !options.zeroes) {
    complaint = "-n requires -z to be specified";
  } else if (options.unmap && !options.zeroes) {
    complaint = "-u requires -z to be specified";
  } else if ((options.zeroes ? 1 : 0) + (options.pattern ? 1 : 0) +
                 (options.pattern_file != nullptr ? 1 : 0) >
             1) {
    complaint = "Only one of -z, -P, and -s can be specified at the same time";
  }
  if (complaint != nullptr) {
    fmt::print("{}\n", complaint);
  }
  return complaint == nullptr;
}

/// Fills the buffer with the file, again and again. Complains about a file that gives nothing.
bool fill_from_file(std::span<std::uint8_t> buffer, const char* path) {
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path, "r"), close);
  if (!file) {
    fmt::print(stderr, "{}: {}\n", path, std::strerror(errno));
    return false;
  }
  const auto got = std::fread(buffer.data(), 1, buffer.size(), file.get());
  if (std::ferror(file.get()) != 0) {
    fmt::print(stderr, "{}: {}\n", path, std::strerror(errno));
    return false;
  }
  if (got == 0) {
    fmt::print(stderr, "{}: file is empty\n", path);
    return false;
  }
  for (auto at = got; at < buffer.size(); ++at) {
    buffer[at] = buffer[at - got];
  }
  return true;
}

Result<void> write_as_asked(Session& session, const WriteOptions& options, std::uint64_t offset,
                            std::uint64_t count, std::span<const iovec> from) {
  if (options.vm_state) {
    return session.wait(write_vm_state(session.image(), offset, from));
  }
  if (options.zeroes) {
    const ZeroFlags flags{.may_unmap = options.unmap, .fua = options.fua};
    return options.no_fallback ? session.wait(zero_quickly(session.image(), offset, count, flags))
                               : session.wait(zero_range(session.device(), offset, count, flags));
  }
  if (options.compressed) {
    return session.wait(write_compressed(session.image(), offset, from));
  }
  return session.wait(write_range(session.device(), offset, from, {.fua = options.fua}));
}

}  // namespace

bool write_command(Session& session, Words& words, const Command& command) {
  const auto options = write_options(words, command);
  if (!options) {
    return false;
  }
  if (words.left() != 2) {
    return usage(command);
  }
  if (!agree(*options)) {
    return false;
  }
  const auto offset = parse_bytes(session, words.operand(0));
  if (!offset) {
    return false;
  }
  const auto count = parse_bytes(session, words.operand(1));
  if (!count) {
    return false;
  }
  if (*count > kLongestRequest && !options->no_fallback) {
    fmt::print("length cannot exceed {} without -n, given {}\n", kLongestRequest, words.operand(1));
    return false;
  }
  if ((options->vm_state || options->compressed) &&
      (!sector_aligned(*offset, "offset") || !sector_aligned(*count, "count"))) {
    return false;
  }
  const auto begin = Clock::now();
  const bool buffered = !options->zeroes;
  if (const auto within =
          options->vm_state || !buffered ? Result<void>() : check_range(session.device(), *offset, *count);
      !within && options->pattern_file == nullptr) {
    print_failure("write", within.error());  // before asking for the memory
    return false;
  }
  const Buffer buffer(session, buffered ? *count : 0, options->pattern.value_or(0xcd));
  if (options->pattern_file != nullptr && !fill_from_file(buffer.bytes(), options->pattern_file)) {
    return false;
  }
  const iovec piece{buffer.bytes().data(), buffer.bytes().size()};
  const auto written = write_as_asked(session, *options, *offset, *count, {&piece, 1});
  if (!written) {
    print_failure("write", written.error());
    return false;
  }
  if (!options->quiet) {
    print_report({"wrote", *offset, *count, begin, options->machine_readable});
  }
  return true;
}

}  // namespace whistler::tools::io
