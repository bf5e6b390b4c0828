#include "tools/img/convert_settings.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "block/node_options.hpp"
#include "tools/img/options.hpp"
#include "tools/img/target.hpp"

namespace whistler::tools {

namespace {

constexpr std::uint64_t kMaxSparse = 16 * 1024 * 1024;
constexpr int kMaxWorkers = 16;

constexpr option kOptions[] = {{"help", no_argument, nullptr, 'h'},
                               {"source-image-opts", no_argument, nullptr, kImageOpts},
                               {"object", required_argument, nullptr, kObject},
                               {"image-opts", no_argument, nullptr, kImageOpts},
                               {"force-share", no_argument, nullptr, 'U'},
                               {"target-image-opts", no_argument, nullptr, kTargetImageOpts},
                               {"salvage", no_argument, nullptr, kSalvage},
                               {"target-is-zero", no_argument, nullptr, kTargetIsZero},
                               {"bitmaps", no_argument, nullptr, kBitmaps},
                               {"skip-broken-bitmaps", no_argument, nullptr, kSkipBrokenBitmaps},
                               {nullptr, 0, nullptr, 0}};

/// What the letters say beyond the settings.
struct Raw {
  std::string cache = "unsafe";
  std::string source_cache = "writeback";
  bool sparse_given = false;
};

/// False after a complaint.
bool take(const Call& call, int code, const std::string& argument, ConvertSettings& settings, Raw& raw) {
  std::optional<std::uint64_t> number;
  switch (code) {
    case 'f': settings.source_format = argument; break;
    case 'O': settings.target.format = argument; break;
    case 'B':
      settings.backing_file = argument;
      settings.backing_option = true;
      break;
    case 'C': settings.copy_offload = true; break;
    case 'c': settings.compress = true; break;
    case 'F': settings.backing_format = argument; break;
    case 'o':
      if (!is_option_list(argument)) {
        complain(call, fmt::format("Invalid option list: {}", argument));
        return false;
      }
      settings.options.push_back(argument);
      break;
    case 'l': settings.snapshot = read_wanted_snapshot(call, argument); return settings.snapshot.has_value();
    case 'S':
      number = parse_number(call, "buffer size for sparse output", argument);
      if (!number) {
        return false;
      }
      if (*number % 512 != 0 || *number > kMaxSparse) {
        complain(call,
                 fmt::format("Invalid buffer size for sparse output specified. Valid sizes are multiples of "
                             "512 up to {}. Select 0 to disable sparse detection (fully allocates output).",
                             kMaxSparse));
        return false;
      }
      settings.min_zero = *number;
      raw.sparse_given = true;
      break;
    case 'p': settings.progress = true; break;
    case 't': raw.cache = argument; break;
    case 'T': raw.source_cache = argument; break;
    case 'q': settings.quiet = true; break;
    case 'n': settings.skip_create = true; break;
    case 'm': {
      const auto workers = parse_plain_number(argument, 1, kMaxWorkers);
      if (!workers) {
        complain(call,
                 fmt::format("Invalid number of coroutines. Allowed number of coroutines is between 1 and {}",
                             kMaxWorkers));
        return false;
      }
      settings.workers = static_cast<unsigned>(*workers);
      break;
    }
    case 'W': settings.any_order = true; break;
    case 'U': settings.source_flags.force_share = true; break;
    case 'r':
      number = parse_number(call, "rate limit", argument);
      if (!number) {
        return false;
      }
      settings.bytes_per_second = *number;
      break;
    case kObject: return add_object(call, argument, settings.source_flags);
    case kImageOpts: settings.image_opts = true; break;
    case kTargetImageOpts: settings.target.image_opts = true; break;
    case kSalvage: settings.salvage = true; break;
    case kTargetIsZero: settings.target_is_zero = true; break;
    case kBitmaps: settings.bitmaps = true; break;
    case kSkipBrokenBitmaps: settings.skip_broken_bitmaps = true; break;
    default: break;
  }
  return true;
}

/// The complaint about options that do not go together; empty if there is none.
std::string contradiction(const ConvertSettings& settings, const Raw& raw) {
  if (settings.skip_broken_bitmaps && !settings.bitmaps) {
    return "Use of --skip-broken-bitmaps requires --bitmaps";
  }
  if (settings.target.image_opts && !settings.skip_create) {
    return "--target-image-opts requires use of -n flag";
  }
  if (settings.skip_create && !settings.options.empty()) {
    return "-o has no effect when skipping image creation";
  }
  if (settings.copy_offload && settings.compress) {
    return "Cannot enable copy offloading when -c is used";
  }
  if (settings.copy_offload && raw.sparse_given) {
    return "Cannot enable copy offloading when -S is used";
  }
  if (settings.copy_offload && settings.salvage) {
    return "Cannot use copy offloading in salvaging mode";
  }
  if (settings.target_is_zero && !settings.skip_create) {
    return "--target-is-zero requires use of -n flag";
  }
  return {};
}

/// What -o says of the backing file and of preallocation counts here too.
bool look_into_options(const Call& call, ConvertSettings& settings) {
  for (const auto& text : settings.options) {
    const auto options = parse_dotted_options(text);
    if (!options) {
      complain(call, fmt::format("Invalid options for file format '{}'", settings.target.format));
      return false;
    }
    if (const auto file = option_text(*options, "backing_file")) {
      settings.backing_file = *file;
    }
    if (const auto format = option_text(*options, "backing_fmt")) {
      settings.backing_format = *format;
    }
    if (const auto mode = option_text(*options, "preallocation")) {
      settings.preallocated = *mode != "off";
    }
  }
  return true;
}

}  // namespace

std::optional<int> read_convert_settings(const Call& call, ConvertSettings& settings) {
  Raw raw;
  OptionReader reader(call, "hf:O:B:CcF:o:l:S:pt:T:qnm:WUr:", kOptions);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    if (code == 'h') {
      return img_main({call.program, {"--help"}});
    }
    if (!take(call, code, reader.argument(), settings, raw)) {
      return 1;
    }
  }
  if (reader.failed()) {
    return 1;
  }
  if (const auto text = contradiction(settings, raw); !text.empty()) {
    complain(call, text);
    return 1;
  }
  if (settings.target.format.empty() && !settings.target.image_opts) {
    settings.target.format = "raw";
  }
  settings.sources = reader.operands();
  if (std::any_of(settings.options.begin(), settings.options.end(), asks_for_help)) {
    const auto target = settings.sources.size() < 2 ? "" : settings.sources.back();
    return print_creation_help(call, settings.target.format, target);
  }
  if (settings.sources.size() < 2) {
    complain(call, "Must specify image file name");
    return 1;
  }
  settings.target.name = settings.sources.back();
  settings.sources.pop_back();
  const auto source_cache = parse_cache(raw.source_cache);
  if (!source_cache) {
    complain(call, fmt::format("Invalid source cache option: {}", raw.source_cache));
    return 1;
  }
  const auto cache = parse_cache(raw.cache);
  if (!cache) {
    complain(call, fmt::format("Invalid cache option: {}", raw.cache));
    return 1;
  }
  settings.source_flags.cache = *source_cache;
  settings.target_flags.cache = *cache;
  settings.target_flags.secrets = settings.source_flags.secrets;
  if (!look_into_options(call, settings)) {
    return 1;
  }
  return std::nullopt;
}

}  // namespace whistler::tools
