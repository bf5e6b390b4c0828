// img resize: changes the size of the disk.
#include <fmt/format.h>

#include "tools/img/commands.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"
#include "tools/img/size_change.hpp"

namespace whistler::tools {

namespace {

struct ResizeSettings {
  ImageArgument image;
  NodeFlags flags = {.read_only = false, .ignore_backing = false};
  Preallocation preallocation = Preallocation::kOff;
  bool quiet = false;
  bool shrink = false;
  int relative = 0;
  std::uint64_t bytes = 0;
};

/// "+1G", "-1G" or "1G"; false after a complaint.
bool take_size(const Call& call, std::string text, ResizeSettings& settings) {
  if (text.starts_with('+') || text.starts_with('-')) {
    settings.relative = text[0] == '+' ? 1 : -1;
    text.erase(0, 1);
  }
  const auto size = parse_size_text(text);
  if (size) {
    settings.bytes = *size;
    return true;
  }
  if (size.error().code == ErrorCode::kNoSpace) {
    complain(call, fmt::format("Value '{}' is out of range for parameter 'size'", text));
  } else {
    complain(call,
             "Parameter 'size' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E "
             "means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.");
  }
  return false;
}

int resize(const Call& call, Ring& ring, const ResizeSettings& settings, OpenNode& image) {
  const auto current = image.device->size();
  auto wanted = settings.bytes;
  if (settings.relative != 0) {
    if (settings.relative > 0 ? wanted > INT64_MAX - current : wanted >= current) {
      complain(call, "New image size must be positive");
      return 1;
    }
    wanted = settings.relative > 0 ? current + wanted : current - wanted;
  }
  if (wanted == 0 || wanted > INT64_MAX) {
    complain(call, "New image size must be positive");
    return 1;
  }
  if (wanted <= current && settings.preallocation != Preallocation::kOff) {
    complain(call, "Preallocation can only be used for growing images");
    return 1;
  }
  if (wanted < current && !settings.shrink) {
    complain(call, "Use the --shrink option to perform a shrink operation.");
    complain(call,
             "warning: Shrinking an image will delete all data beyond the shrunken image's end. Before "
             "performing such an operation, make sure there is no important data there.");
    return 1;
  }
  const auto done =
      sync_wait(ring, change_size(*image.device, {image.node->driver, wanted, settings.preallocation}));
  if (!done) {
    complain(call, tool_text(done.error()));
    return 1;
  }
  if (!settings.quiet) {
    fmt::print("Image resized.\n");
  }
  return 0;
}

}  // namespace

int img_resize(const Call& call) {
  static const option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                  {"object", required_argument, nullptr, kObject},
                                  {"image-opts", no_argument, nullptr, kImageOpts},
                                  {"preallocation", required_argument, nullptr, kPreallocation},
                                  {"shrink", no_argument, nullptr, kShrink},
                                  {nullptr, 0, nullptr, 0}};
  if (call.arguments.size() == 1 && (call.arguments[0] == "-h" || call.arguments[0] == "--help")) {
    return img_help(call);
  }
  // The size is the last word, before options are looked for: it may begin with a minus.
  if (call.arguments.size() < 2) {
    return complain_with_help(call, "Not enough arguments");
  }
  auto inner = call;
  const auto size = inner.arguments.back();
  inner.arguments.pop_back();
  ResizeSettings settings;
  OptionReader reader(inner, "f:hq", kLongs);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_help(call);
      case 'f': settings.image.format = reader.argument(); break;
      case 'q': settings.quiet = true; break;
      case kImageOpts: settings.image.image_opts = true; break;
      case kPreallocation: {
        const auto mode = parse_preallocation(reader.argument());
        if (!mode) {
          complain(call, fmt::format("Invalid preallocation mode '{}'", reader.argument()));
          return 1;
        }
        settings.preallocation = *mode;
        break;
      }
      case kShrink: settings.shrink = true; break;
      default:
        if (!add_object(call, reader.argument(), settings.flags)) {
          return 1;
        }
    }
  }
  if (reader.failed()) {
    return 1;
  }
  const auto operands = reader.operands();
  if (operands.size() != 1) {
    return complain_with_help(call, "Expecting image file name and size");
  }
  settings.image.name = operands[0];
  if (!take_size(call, size, settings)) {
    return 1;
  }
  const auto ring = make_ring(call);
  auto image = ring ? open_argument(call, *ring, settings.image, settings.flags) : std::nullopt;
  if (!image) {
    return 1;
  }
  const int status = resize(call, *ring, settings, *image);
  return close_image(call, *ring, *image) ? status : 1;
}

}  // namespace whistler::tools
