// img map: which parts of the disk lie where.
#include <fmt/format.h>

#include <algorithm>

#include "tools/img/commands.hpp"
#include "tools/img/map_entry.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"

namespace whistler::tools {

namespace {

/// Bytes asked for at a time.
constexpr std::uint64_t kStep = std::uint64_t{1} << 46;

bool continues(const MapEntry& entry, const MapEntry& before) {
  return entry.zero == before.zero && entry.data == before.data && entry.present == before.present &&
         entry.depth == before.depth && entry.offset.has_value() == before.offset.has_value() &&
         entry.filename == before.filename &&
         (!entry.offset || *before.offset + before.length == *entry.offset);
}

/// Prints; false after a complaint.
bool print(const Call& call, const MapEntry& entry, bool json, bool first) {
  if (json) {
    fmt::print(
        "{}{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, \"data\": {}",
        first ? "" : ",\n", entry.start, entry.length, entry.depth, entry.present, entry.zero, entry.data);
    if (entry.offset) {
      fmt::print(", \"offset\": {}", *entry.offset);
    }
    fmt::print("}}");
    return true;
  }
  if (!entry.data || entry.zero) {
    return true;
  }
  if (!entry.offset) {
    complain(call, "File contains external, encrypted or compressed clusters.");
    return false;
  }
  const auto hex = [](std::uint64_t value) {
    return value == 0 ? std::string("0") : fmt::format("{:#x}", value);
  };
  fmt::print("{:<16}{:<16}{:<16}{}\n", hex(entry.start), hex(entry.length), hex(*entry.offset),
             entry.filename);
  return true;
}

int map(const Call& call, Ring& ring, const Node& top, std::uint64_t start, std::uint64_t length, bool json) {
  const auto size = top.device->size();
  const auto end = std::min(size, length > size  ? size
                                  : start > size ? size
                                                 : start + std::min(length, size - start));
  fmt::print("{}",
             json ? "[" : fmt::format("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File"));
  std::optional<MapEntry> current;
  bool first = true;
  for (auto at = start; at < end;) {
    const auto next = map_entry_at(ring, top, at, std::min(kStep, end - at));
    if (!next) {
      complain(call, fmt::format("Failed to read image metadata: {}", tool_text(next.error())));
      return 1;
    }
    at += next->length;
    if (current && continues(*next, *current)) {
      current->length += next->length;
      continue;
    }
    if (current) {
      if (!print(call, *current, json, first)) {
        return 1;
      }
      first = false;
    }
    current = *next;
  }
  // Where there is nothing to tell of, QEMU tells of an empty range.
  if (!print(call, current.value_or(MapEntry{.start = start}), json, first)) {
    return 1;
  }
  fmt::print("{}", json ? "]\n" : "");
  return 0;
}

}  // namespace

int img_map(const Call& call) {
  static const option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                  {"format", required_argument, nullptr, 'f'},
                                  {"output", required_argument, nullptr, kOutput},
                                  {"object", required_argument, nullptr, kObject},
                                  {"image-opts", no_argument, nullptr, kImageOpts},
                                  {"force-share", no_argument, nullptr, 'U'},
                                  {"start-offset", required_argument, nullptr, 's'},
                                  {"max-length", required_argument, nullptr, 'l'},
                                  {nullptr, 0, nullptr, 0}};
  ImageArgument image;
  NodeFlags flags;
  std::string output = "human";
  std::optional<std::uint64_t> start = 0;
  std::optional<std::uint64_t> length = INT64_MAX;
  OptionReader reader(call, "f:s:l:hU", kLongs);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_help(call);
      case 'f': image.format = reader.argument(); break;
      case 'U': flags.force_share = true; break;
      case 's': start = parse_number(call, "start offset", reader.argument()); break;
      case 'l': length = parse_number(call, "max length", reader.argument()); break;
      case kOutput: output = reader.argument(); break;
      case kImageOpts: image.image_opts = true; break;
      default:
        if (!add_object(call, reader.argument(), flags)) {
          return 1;
        }
    }
    if (!start || !length) {
      return 1;
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
  auto opened = ring ? open_argument(call, *ring, image, flags) : std::nullopt;
  if (!opened) {
    return 1;
  }
  return map(call, *ring, *opened->node, *start, *length, output == "json");
}

}  // namespace whistler::tools
