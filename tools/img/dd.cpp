// img dd: copies a part of an image into a new one.
#include <fmt/format.h>

#include <algorithm>

#include "tools/img/commands.hpp"
#include "tools/img/copier.hpp"
#include "tools/img/messages.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"
#include "tools/img/target.hpp"

namespace whistler::tools {

namespace {

constexpr option kOptions[] = {{"help", no_argument, nullptr, 'h'},
                               {"object", required_argument, nullptr, kObject},
                               {"image-opts", no_argument, nullptr, kImageOpts},
                               {"force-share", no_argument, nullptr, 'U'},
                               {nullptr, 0, nullptr, 0}};

struct Settings {
  ImageArgument input;
  NodeFlags flags;
  std::string output;
  std::string output_format = "raw";
  std::uint64_t block = 512;
  std::optional<std::uint64_t> count;
  std::uint64_t skip = 0;
};

bool read_operand(const Call& call, const std::string& word, Settings& settings) {
  const auto equals = word.find('=');
  const auto key = word.substr(0, equals);
  const auto value = equals == std::string::npos ? std::string() : word.substr(equals + 1);
  const bool known = key == "bs" || key == "count" || key == "skip" || key == "if" || key == "of";
  if (equals == std::string::npos || !known) {
    complain(call, fmt::format("unrecognized operand {}", key));
    return false;
  }
  if (key == "if") {
    settings.input.name = value;
    return true;
  }
  if (key == "of") {
    settings.output = value;
    return true;
  }
  const auto number =
      key == "bs" ? parse_number(call, key, value, 1, INT32_MAX) : parse_number(call, key, value);
  if (!number) {
    return false;
  }
  if (key == "bs") {
    settings.block = *number;
  } else if (key == "count") {
    settings.count = *number;
  } else {
    settings.skip = *number;
  }
  return true;
}

int copy(const Call& call, Ring& ring, const Settings& settings) {
  auto input = open_argument(call, ring, settings.input, settings.flags);
  if (!input) {
    return 1;
  }
  if (!spares_source(call, *input->node, settings.output)) {
    return 1;
  }
  if (!is_creatable(settings.output_format)) {
    complain(call, "Unknown file format");
    return 1;
  }
  auto size = input->device->size();
  if (settings.count && *settings.count <= INT64_MAX / settings.block) {
    size = std::min(size, *settings.count * settings.block);
  }
  const bool beyond = settings.skip > INT64_MAX / settings.block || size < settings.skip * settings.block;
  const auto begin = beyond ? size : settings.skip * settings.block;
  const auto created = create_target(
      ring, {.path = settings.output, .format = settings.output_format, .size = beyond ? 0 : size - begin});
  if (!created) {
    complain(call, fmt::format("{}: error while creating output image: {}", settings.output,
                               tool_text(created.error())));
    return 1;
  }
  auto output = open_argument(call, ring, {.name = settings.output, .format = settings.output_format},
                              {.read_only = false});
  if (!output) {
    return 1;
  }
  if (beyond) {
    complain(call, fmt::format("{}: cannot skip to specified offset", settings.input.name));
  }
  Progress progress(false);
  CopyOptions options{.min_zero = 0};
  Copier copier({{.device = input->device.get(), .bytes = size - begin, .begin = begin}}, *output->device,
                options, progress, [](const std::string&) {});
  const auto done = sync_wait(ring, copier.run());
  if (!done) {
    const bool reading = done.error().message.find("reading") != std::string::npos;
    complain(call, fmt::format("error while {} image file: {}",
                               reading ? "reading from input" : "writing to output",
                               reason_of(*copier.failed_request())));
    return 1;
  }
  return close_image(call, ring, *output) ? 0 : 1;
}

}  // namespace

int img_dd(const Call& call) {
  Settings settings;
  OptionReader reader(call, "hf:O:U", kOptions);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_main({call.program, {"--help"}});
      case 'f': settings.input.format = reader.argument(); break;
      case 'O': settings.output_format = reader.argument(); break;
      case 'U': settings.flags.force_share = true; break;
      case kObject:
        if (!add_object(call, reader.argument(), settings.flags)) {
          return 1;
        }
        break;
      case kImageOpts: settings.input.image_opts = true; break;
      default: break;
    }
  }
  if (reader.failed()) {
    return 1;
  }
  for (const auto& word : reader.operands()) {
    if (!read_operand(call, word, settings)) {
      return 1;
    }
  }
  if (settings.input.name.empty() || settings.output.empty()) {
    complain(call, "Must specify both input and output files");
    return 1;
  }
  const auto ring = make_ring(call);
  return ring ? copy(call, *ring, settings) : 1;
}

}  // namespace whistler::tools
