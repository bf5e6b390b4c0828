#include "tools/nbd/options.hpp"

#include <fmt/format.h>
#include <getopt.h>

#include <array>
#include <cctype>
#include <charconv>
#include <cstdio>

#include "tools/nbd/help.hpp"

namespace whistler::tools::nbd {

namespace {

enum Long : int {
  kCache = 256,
  kAio,
  kDiscard,
  kDetectZeroes,
  kObject,
  kTlsCreds,
  kTlsAuthz,
  kTlsHostname,
  kImageOpts,
  kFork,
  kPidFile,
  kSelinux,
  kExport,
};

constexpr const char* kShort = "hVb:o:p:rsnc:dvk:e:f:tl:x:T:D:AB:L";
const std::array kLong = {
    option{"help", no_argument, nullptr, 'h'},
    option{"version", no_argument, nullptr, 'V'},
    option{"bind", required_argument, nullptr, 'b'},
    option{"port", required_argument, nullptr, 'p'},
    option{"socket", required_argument, nullptr, 'k'},
    option{"offset", required_argument, nullptr, 'o'},
    option{"read-only", no_argument, nullptr, 'r'},
    option{"allocation-depth", no_argument, nullptr, 'A'},
    option{"bitmap", required_argument, nullptr, 'B'},
    option{"connect", required_argument, nullptr, 'c'},
    option{"disconnect", no_argument, nullptr, 'd'},
    option{"list", no_argument, nullptr, 'L'},
    option{"snapshot", no_argument, nullptr, 's'},
    option{"load-snapshot", required_argument, nullptr, 'l'},
    option{"nocache", no_argument, nullptr, 'n'},
    option{"cache", required_argument, nullptr, kCache},
    option{"aio", required_argument, nullptr, kAio},
    option{"discard", required_argument, nullptr, kDiscard},
    option{"detect-zeroes", required_argument, nullptr, kDetectZeroes},
    option{"shared", required_argument, nullptr, 'e'},
    option{"format", required_argument, nullptr, 'f'},
    option{"persistent", no_argument, nullptr, 't'},
    option{"verbose", no_argument, nullptr, 'v'},
    option{"object", required_argument, nullptr, kObject},
    option{"export-name", required_argument, nullptr, 'x'},
    option{"description", required_argument, nullptr, 'D'},
    option{"tls-creds", required_argument, nullptr, kTlsCreds},
    option{"tls-hostname", required_argument, nullptr, kTlsHostname},
    option{"tls-authz", required_argument, nullptr, kTlsAuthz},
    option{"image-opts", no_argument, nullptr, kImageOpts},
    option{"trace", required_argument, nullptr, 'T'},
    option{"fork", no_argument, nullptr, kFork},
    option{"pid-file", required_argument, nullptr, kPidFile},
    option{"selinux-label", required_argument, nullptr, kSelinux},
    option{"export", required_argument, nullptr, kExport},
    option{nullptr, 0, nullptr, 0},
};

/// A size with an optional suffix; nothing if it is none.
std::optional<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc() || end == text.begin()) {
    return std::nullopt;
  }
  const std::string_view suffix(end, static_cast<std::size_t>(text.end() - end));
  if (suffix.empty() || suffix == "b" || suffix == "B") {
    return value;
  }
  const auto power = std::string_view("kmgtpe").find(static_cast<char>(std::tolower(suffix[0])));
  if (suffix.size() != 1 || power == std::string_view::npos) {
    return std::nullopt;
  }
  const unsigned shift = 10 * static_cast<unsigned>(power + 1);
  return value << shift >> shift == value ? std::optional(value << shift) : std::nullopt;
}

std::optional<CacheMode> parse_cache(std::string_view text) {
  if (text == "none" || text == "off") {
    return CacheMode::kNone;
  }
  if (text == "directsync") {
    return CacheMode::kDirectsync;
  }
  if (text == "writeback") {
    return CacheMode::kWriteback;
  }
  if (text == "unsafe") {
    return CacheMode::kUnsafe;
  }
  return text == "writethrough" ? std::optional(CacheMode::kWritethrough) : std::nullopt;
}

/// Reads one command line into `options`.
class Parser {
 public:
  Parser(const Call& call, Options& options) : call_(call), options_(options) {}

  /// False: an error has been said.
  bool take(int option, const std::string& value);
  bool check();

 private:
  bool complain_of(const std::string& message) {
    complain(call_, message);
    return false;
  }
  bool take_image_option(int option, const std::string& value);
  bool take_mode(int option, const std::string& value);
  bool once(bool& seen, const char* message) {
    return std::exchange(seen, true) ? complain_of(message) : true;
  }

  const Call& call_;
  Options& options_;
  bool seen_cache_ = false;
  bool seen_aio_ = false;
  bool seen_discard_ = false;
};

bool Parser::take(int option, const std::string& value) {
  switch (option) {
    case 'b': options_.bind = value; return true;
    case 'p': options_.port = value; return true;
    case 'k':
      options_.socket = value;
      options_.socket_given = true;
      return value.starts_with('/') || complain_of("socket path must be absolute");
    case 'e': {
      unsigned number = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
      if (error != std::errc() || end != value.data() + value.size() || number > INT32_MAX) {
        return complain_of(fmt::format("Invalid shared device number '{}'", value));
      }
      options_.shared = number;
      return true;
    }
    case 't': options_.persistent = true; return true;
    case 'v': options_.verbose = true; return true;
    case 'L': options_.list = true; return true;
    case 'T': return true;
    case kObject: options_.objects.push_back(value); return true;
    case kTlsCreds: options_.tls_creds = value; return true;
    case kTlsAuthz: options_.tls_authz = value; return true;
    case kTlsHostname: options_.tls_hostname = value; return true;
    case kFork: options_.fork = true; return true;
    case kPidFile: options_.pid_file = value; return true;
    case kSelinux: return complain_of("--selinux-label is not offered here");
    default: return take_image_option(option, value);
  }
}

bool Parser::take_image_option(int option, const std::string& value) {
  switch (option) {
    case 'r': options_.read_only = true; return true;
    case 'f': options_.format = value; return true;
    case kImageOpts: options_.image_opts = true; return true;
    case kCache:
    case kAio:
    case kDiscard:
    case kDetectZeroes:
    case 'n': return take_mode(option, value);
    case 's': options_.snapshot = true; return true;
    case 'l':
      options_.load_snapshot = value;
      options_.read_only = true;
      return true;
    default: break;
  }
  options_.per_device = true;
  switch (option) {
    case 'x':
      options_.export_name = value;
      return value.size() <= 4096 || complain_of("export name is too long");
    case 'D':
      options_.description = value;
      return value.size() <= 4096 || complain_of("description is too long");
    case 'o': {
      const auto offset = parse_size(value);
      options_.negative_offset = !offset && value.starts_with('-');
      if (options_.negative_offset) {
        return true;
      }
      if (!offset) {
        return complain_of(fmt::format("Invalid offset '{}'", value));
      }
      options_.offset = *offset;
      return true;
    }
    case 'A': options_.allocation_depth = true; return true;
    case 'B': options_.bitmaps.push_back(value); return true;
    case 'c': options_.device = value; return true;
    case 'd': options_.disconnect = true; return true;
    case kExport: options_.exports.push_back(value); return true;
    default: return false;
  }
}

bool Parser::take_mode(int option, const std::string& value) {
  switch (option) {
    case 'n':
    case kCache: {
      if (!once(seen_cache_, "-n and --cache can only be specified once")) {
        return false;
      }
      const auto mode = parse_cache(option == 'n' ? "none" : value);
      if (!mode) {
        return complain_of(fmt::format("Invalid cache mode `{}'", value));
      }
      options_.cache = *mode;
      return true;
    }
    case kAio:
      if (!once(seen_aio_, "--aio can only be specified once")) {
        return false;
      }
      return value == "native" || value == "io_uring" || value == "threads" ||
             complain_of(fmt::format("Invalid aio mode '{}'", value));
    case kDiscard:
      if (!once(seen_discard_, "--discard can only be specified once")) {
        return false;
      }
      options_.discard = value == "unmap" || value == "on";
      return options_.discard || value == "ignore" || value == "off" ||
             complain_of(fmt::format("Invalid discard mode `{}'", value));
    default: break;
  }
  if (value == "unmap") {
    options_.detect_zeroes = DetectZeroes::kUnmap;
    return options_.discard || complain_of(
                                   "setting detect-zeroes to unmap is not allowed without setting "
                                   "discard operation to unmap");
  }
  options_.detect_zeroes = value == "on" ? DetectZeroes::kOn : DetectZeroes::kOff;
  return value == "on" || value == "off" ||
         complain_of(fmt::format("Failed to parse detect_zeroes mode: invalid parameter value: {}", value));
}

bool Parser::check() {
  if (options_.list) {
    if (options_.file) {
      return complain_of("List mode is incompatible with a file name");
    }
    if (options_.per_device || !options_.load_snapshot.empty() || options_.snapshot || seen_aio_ ||
        seen_cache_ || seen_discard_ || !options_.format.empty()) {
      return complain_of("List mode is incompatible with per-device settings");
    }
    if (options_.fork) {
      return complain_of("List mode is incompatible with forking");
    }
  }
  if (!options_.tls_authz.empty() && options_.tls_creds.empty()) {
    return complain_of("--tls-authz is not permitted without --tls-creds");
  }
  if (!options_.tls_hostname.empty() && options_.tls_creds.empty()) {
    return complain_of("--tls-hostname is not permitted without --tls-creds");
  }
  if (!options_.tls_creds.empty() && !options_.device.empty()) {
    return complain_of("TLS is not supported with a host device");
  }
  if (options_.image_opts && !options_.format.empty()) {
    return complain_of("--image-opts and -f are mutually exclusive");
  }
  return true;
}

}  // namespace

std::optional<Options> parse_options(const Call& call, int& status) {
  Options options;
  Parser parser(call, options);
  std::vector<std::string> words{call.program};
  words.insert(words.end(), call.arguments.begin(), call.arguments.end());
  std::vector<char*> argv;
  for (auto& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  const int argc = static_cast<int>(words.size());
  status = 1;
  ::optind = 0;
  for (;;) {
    const int found = ::getopt_long(argc, argv.data(), kShort, kLong.data(), nullptr);
    if (found < 0) {
      break;
    }
    if (found == '?') {
      complain(call, fmt::format("Try `{} --help' for more information.", call.program));
      return std::nullopt;
    }
    if (found == 'h' || found == 'V') {
      fmt::print("{}", found == 'h' ? help_text(call.program) : version_text(call.program));
      status = 0;
      return std::nullopt;
    }
    if (!parser.take(found, ::optarg == nullptr ? "" : ::optarg)) {
      return std::nullopt;
    }
  }
  const int left = argc - ::optind;
  if (left > 0 && (options.list || left == 1)) {
    options.file = argv[static_cast<std::size_t>(::optind)];  // getopt has put the options first
  }
  if (!options.list && left != 1 && !(left == 0 && !options.exports.empty())) {
    complain(call,
             fmt::format("Invalid number of arguments\nTry `{} --help' for more information.", call.program));
    return std::nullopt;
  }
  if (!parser.check()) {
    return std::nullopt;
  }
  return options;
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> parts(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      parts.back() += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      parts.back() += text[i++];
    } else {
      parts.emplace_back();
    }
  }
  return parts;
}

Result<ExportOptions> parse_export(const std::string& text) {
  const auto parts = split_commas(text);
  const auto equals = parts.front().find('=');
  if (equals == std::string::npos || equals + 1 == parts.front().size()) {
    return fail(ErrorCode::kInvalid, fmt::format("--export={}: NAME=FILE is expected", text));
  }
  ExportOptions options;
  options.name = parts.front().substr(0, equals);
  options.file = parts.front().substr(equals + 1);
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const auto sign = parts[i].find('=');
    const auto key = parts[i].substr(0, sign);
    const auto value = sign == std::string::npos ? "on" : parts[i].substr(sign + 1);
    if (key == "format") {
      options.format = value;
    } else if (key == "description") {
      options.description = value;
    } else if (key == "readonly" && (value == "on" || value == "off")) {
      options.read_only = value == "on";
    } else {
      return fail(ErrorCode::kInvalid,
                  fmt::format("--export={}: '{}' is not one of format=FORMAT, readonly=on|off, "
                              "description=TEXT",
                              text, parts[i]));
    }
  }
  return options;
}

}  // namespace whistler::tools::nbd
