// img info: what an image is.
#include <fmt/format.h>

#include <set>

#include "tools/img/commands.hpp"
#include "tools/img/image_info.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"

namespace whistler::tools {

namespace {

/// The image, and with `chain` those below it; nothing after a complaint.
std::optional<std::vector<Options>> collect(const Call& call, Ring& ring, ImageArgument image,
                                            const NodeFlags& flags, bool chain) {
  std::vector<Options> list;
  std::set<std::string> seen;
  for (;;) {
    if (!seen.insert(image.name).second) {
      complain(call, fmt::format("Backing file '{}' creates an infinite loop.", image.name));
      return std::nullopt;
    }
    auto opened = open_argument(call, ring, image, flags);
    if (!opened) {
      return std::nullopt;
    }
    auto info = collect_image_info(ring, *opened);
    if (!info) {
      complain(call, tool_text(info.error()));
      return std::nullopt;
    }
    list.push_back(*info);
    const auto next = option_text(list.back(), "full-backing-filename");
    if (!chain || !option_text(list.back(), "backing-filename")) {
      return list;
    }
    if (!next) {
      complain(call, fmt::format("Could not determine the backing file name of '{}'", image.name));
      return std::nullopt;
    }
    image = {.name = *next, .format = option_text(list.back(), "backing-filename-format").value_or("")};
  }
}

}  // namespace

int img_info(const Call& call) {
  static const option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                  {"format", required_argument, nullptr, 'f'},
                                  {"output", required_argument, nullptr, kOutput},
                                  {"backing-chain", no_argument, nullptr, kBackingChain},
                                  {"force-share", no_argument, nullptr, 'U'},
                                  {"object", required_argument, nullptr, kObject},
                                  {"image-opts", no_argument, nullptr, kImageOpts},
                                  {nullptr, 0, nullptr, 0}};
  ImageArgument image;
  NodeFlags flags{.ignore_backing = true, .no_io = true};
  std::string output = "human";
  bool chain = false;
  OptionReader reader(call, "hf:U", kLongs);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_help(call);
      case 'f': image.format = reader.argument(); break;
      case 'U': flags.force_share = true; break;
      case kOutput: output = reader.argument(); break;
      case kBackingChain: chain = true; break;
      case kImageOpts: image.image_opts = true; break;
      default:
        if (!add_object(call, reader.argument(), flags)) {
          return 1;
        }
    }
  }
  if (reader.failed()) {
    return 1;
  }
  const auto operands = reader.operands();
  if (operands.size() != 1) {
    return complain_with_help(call, "Expecting one image file name");
  }
  if (output != "human" && output != "json") {
    complain(call, "--output must be used with human or json as argument.");
    return 1;
  }
  image.name = operands[0];
  const auto ring = make_ring(call);
  if (!ring) {
    return 1;
  }
  const auto list = collect(call, *ring, image, flags, chain);
  if (!list) {
    return 1;
  }
  if (output == "json") {
    fmt::print("{}\n", print_json(chain ? Options(*list) : list->front(), true));
    return 0;
  }
  for (std::size_t i = 0; i < list->size(); ++i) {
    fmt::print("{}{}", i == 0 ? "" : "\n", show_image_info((*list)[i]));
  }
  return 0;
}

}  // namespace whistler::tools
