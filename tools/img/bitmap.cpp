#include "tools/img/bitmap.hpp"

#include <fmt/format.h>
#include <getopt.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <memory>
#include <optional>
#include <system_error>

#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/image.hpp"
#include "tools/img/opening.hpp"

namespace whistler::tools {

namespace {

enum class Act : std::uint8_t { kAdd, kRemove, kClear, kEnable, kDisable, kMerge };

constexpr std::array<std::string_view, 6> kActNames = {"add",    "remove",  "clear",
                                                       "enable", "disable", "merge"};

struct Action {
  Act act;
  std::string source = {};  ///< kMerge: the bitmap to merge
};

struct BitmapOptions {
  std::vector<Action> actions;
  bool adds = false;
  std::uint64_t granularity = 0;
  std::optional<std::string> format, source_file, source_format;
  bool image_options = false;
  std::string file, bitmap;
  NodeFlags flags{.read_only = false, .ignore_backing = true};
};

constexpr int kFirstLong = 256;
constexpr int kImageOptions = kFirstLong + 10;
constexpr int kObject = kFirstLong + 11;

constexpr std::array<option, 14> kLongOptions = {{
    {"add", no_argument, nullptr, kFirstLong + static_cast<int>(Act::kAdd)},
    {"remove", no_argument, nullptr, kFirstLong + static_cast<int>(Act::kRemove)},
    {"clear", no_argument, nullptr, kFirstLong + static_cast<int>(Act::kClear)},
    {"enable", no_argument, nullptr, kFirstLong + static_cast<int>(Act::kEnable)},
    {"disable", no_argument, nullptr, kFirstLong + static_cast<int>(Act::kDisable)},
    {"merge", required_argument, nullptr, kFirstLong + static_cast<int>(Act::kMerge)},
    {"granularity", required_argument, nullptr, 'g'},
    {"source-file", required_argument, nullptr, 'b'},
    {"source-format", required_argument, nullptr, 'F'},
    {"format", required_argument, nullptr, 'f'},
    {"image-opts", no_argument, nullptr, kImageOptions},
    {"object", required_argument, nullptr, kObject},
    {nullptr, 0, nullptr, 0},
    {nullptr, 0, nullptr, 0},
}};

/// "64k": bytes; nothing if it is no size.
std::optional<std::uint64_t> parse_granularity(const std::string& text) {
  std::size_t end = 0;
  double number = 0;
  try {
    number = std::stod(text, &end);
  } catch (const std::exception&) {
    return std::nullopt;
  }
  constexpr std::string_view kSuffixes = "BKMGTPE";
  unsigned shift = 0;
  if (end < text.size()) {
    const auto suffix = kSuffixes.find(static_cast<char>(std::toupper(text[end])));
    if (suffix == std::string_view::npos || end + 1 != text.size()) {
      return std::nullopt;
    }
    shift = static_cast<unsigned>(suffix) * 10;
  }
  const double bytes = number * static_cast<double>(std::uint64_t{1} << shift);
  if (!(bytes >= 0) || bytes >= 9223372036854775808.0) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(bytes);
}

/// The options, or nothing when the complaint has been made.
std::optional<BitmapOptions> parse(const Call& call) {
  BitmapOptions options;
  std::vector<std::string> arguments = {call.program};
  arguments.insert(arguments.end(), call.arguments.begin(), call.arguments.end());
  std::vector<char*> argv;
  for (auto& argument : arguments) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  const auto refuse = [&](std::string_view why) {
    complain(call, why);
    return std::nullopt;
  };
  ::optind = 0;
  for (;;) {
    const int letter = ::getopt_long(static_cast<int>(argv.size()) - 1, argv.data(), ":b:f:F:g:h",
                                     kLongOptions.data(), nullptr);
    if (letter < 0) {
      break;
    }
    const std::string value = ::optarg == nullptr ? "" : ::optarg;
    switch (letter) {
      case 'b': options.source_file = value; break;
      case 'f': options.format = value; break;
      case 'F': options.source_format = value; break;
      case 'g': {
        const auto bytes = parse_granularity(value);
        if (!bytes) {
          complain(call, "Invalid granularity specified. You may use k, M, G, T, P or E suffixes for");
          return refuse("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        }
        options.granularity = *bytes;
        break;
      }
      case kImageOptions: options.image_options = true; break;
      case kObject:
        if (!add_object(call, value, options.flags)) {
          return std::nullopt;
        }
        break;
      case ':':
        complain(call, fmt::format("option '{}' requires an argument",
                                   argv[static_cast<std::size_t>(::optind) - 1]));
        fmt::print(stderr, "Try '{} --help' for more information\n", call.program);
        return std::nullopt;
      case '?':
        complain(call, fmt::format("unrecognized option '{}'", argv[static_cast<std::size_t>(::optind) - 1]));
        fmt::print(stderr, "Try '{} --help' for more information\n", call.program);
        return std::nullopt;
      default: {
        const auto act = static_cast<Act>(letter - kFirstLong);
        options.adds = options.adds || act == Act::kAdd;
        options.actions.push_back({act, value});
      }
    }
  }
  const auto rest = static_cast<std::size_t>(::optind);
  if (arguments.size() - rest != 2) {
    return refuse("Expecting filename and bitmap name");
  }
  options.file = argv[rest];  // getopt has put the options first
  options.bitmap = argv[rest + 1];
  if (options.actions.empty()) {
    return refuse("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
  }
  if (options.granularity != 0 && !options.adds) {
    return refuse("granularity only supported with --add");
  }
  if (options.source_format && !options.source_file) {
    return refuse("-F only supported with -b");
  }
  const bool merges = std::any_of(options.actions.begin(), options.actions.end(),
                                  [](const Action& action) { return action.act == Act::kMerge; });
  if (options.source_file && !merges) {
    return refuse("Merge bitmap source file only supported with --merge");
  }
  if (options.image_options && options.format) {
    return refuse("--image-opts and --format are mutually exclusive");
  }
  return options;
}

Task<Result<void>> merge(qcow2::Image& image, qcow2::Image* source, std::string from, std::string to) {
  const auto not_found = [](const std::string& name) {
    return fail(ErrorCode::kNotFound, fmt::format("Dirty bitmap '{}' not found", name));
  };
  const auto bitmaps = co_await image.bitmaps().list();
  if (!bitmaps) {
    co_return std::unexpected(bitmaps.error());
  }
  if (std::none_of(bitmaps->begin(), bitmaps->end(),
                   [&](const qcow2::BitmapInfo& bitmap) { return bitmap.name == to; })) {
    co_return not_found(to);
  }
  if (source == nullptr) {
    co_return not_found(from);
  }
  auto bits = co_await source->bitmaps().content(std::move(from));
  if (!bits) {
    co_return std::unexpected(bits.error());
  }
  auto merged = co_await image.bitmaps().merge(std::move(to), *bits);
  co_return merged;
}

Task<Result<void>> run_action(const BitmapOptions& options, const Action& action, qcow2::Image& image,
                              qcow2::Image* source) {
  auto& bitmaps = image.bitmaps();
  auto name = options.bitmap;
  Result<void> done;
  switch (action.act) {
    case Act::kAdd: done = co_await bitmaps.add(std::move(name), options.granularity, true); break;
    case Act::kRemove: done = co_await bitmaps.remove(std::move(name)); break;
    case Act::kClear: done = co_await bitmaps.clear(std::move(name)); break;
    case Act::kEnable: done = co_await bitmaps.enable(std::move(name), true); break;
    case Act::kDisable: done = co_await bitmaps.enable(std::move(name), false); break;
    case Act::kMerge: {
      auto from = action.source;
      done = co_await merge(image, source, std::move(from), std::move(name));
    }
  }
  co_return done;
}

/// What is said of a bitmap in an image that can hold none.
std::string cannot_hold(const BitmapOptions& options, Act act) {
  return act == Act::kAdd
             ? fmt::format("Can't store persistent bitmaps to {}: Operation not supported", options.file)
             : fmt::format("Dirty bitmap '{}' not found", options.bitmap);
}

}  // namespace

int bitmap_command(const Call& call) {
  const auto options = parse(call);
  if (!options) {
    return 1;
  }
  const auto ring = make_ring(call);
  if (!ring) {
    return 1;
  }
  auto target = open_argument(
      call, *ring, {options->file, options->format.value_or(""), options->image_options}, options->flags);
  if (!target) {
    return 1;
  }
  std::optional<OpenImage> other;
  qcow2::Image* image = target->node->qcow2;
  qcow2::Image* source = image;
  if (options->source_file) {
    auto flags = options->flags;
    flags.read_only = true;
    other = open_argument(call, *ring, {*options->source_file, options->source_format.value_or("")}, flags);
    if (!other) {
      return 1;
    }
    source = other->node->qcow2;
  }
  int status = 0;
  for (const auto& action : options->actions) {
    Result<void> done;
    if (image == nullptr) {
      done = fail(ErrorCode::kUnsupported, cannot_hold(*options, action.act));
    } else {
      done = sync_wait(*ring, run_action(*options, action, *image, source));
    }
    if (!done) {
      complain(call, fmt::format("Operation {} on bitmap {} failed: {}",
                                 kActNames[static_cast<std::size_t>(action.act)], options->bitmap,
                                 done.error().message));
      status = 1;
      break;
    }
  }
  return close_image(call, *ring, *target) ? status : 1;
}

}  // namespace whistler::tools
