#include "tools/img/target.hpp"

#include <fmt/format.h>

#include "block/node_drivers.hpp"
#include "tools/img/opening.hpp"

namespace whistler::tools {

namespace {

std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kInvalid, std::move(text)); }

/// Takes -b and -F into the values.
Result<void> take_backing(const NewTarget& target, const std::vector<OptionSpec>& specs, Options& values) {
  const auto has = [&](std::string_view name) {
    for (const auto& spec : specs) {
      if (spec.name == name) {
        return true;
      }
    }
    return false;
  };
  if (target.backing_file) {
    if (!has("backing_file")) {
      return refuse(fmt::format("Backing file not supported for file format '{}'", target.format));
    }
    values["backing_file"] = *target.backing_file;
  }
  if (target.backing_format) {
    if (!has("backing_fmt")) {
      return refuse(fmt::format("Backing format not supported for file format '{}'", target.format));
    }
    values["backing_fmt"] = *target.backing_format;
  }
  return {};
}

/// Opens the backing file: it must be there, and may tell the size.
Result<void> look_at_backing(Ring& ring, const NewTarget& target, Options& values) {
  const auto backing = option_text(values, "backing_file");
  if (!backing) {
    return {};
  }
  const auto format = option_text(values, "backing_fmt");
  if (target.unsafe_backing) {
    return format ? Result<void>{} : refuse("Backing file specified without backing format");
  }
  auto flags = target.backing_flags;
  flags.read_only = true;
  flags.no_io = true;  // a key is not needed to learn the size
  auto opened = open_node(ring, NodeName::of_file(combine_names(target.path, *backing), format), flags);
  if (!opened) {
    return refuse(tool_text(opened.error()) + "\nCould not open backing image.");
  }
  const auto size = opened->device->size();
  const auto driver = opened->node->driver;
  const auto closed = sync_wait(ring, opened->device->close());
  static_cast<void>(closed);  // it was only read
  if (!format) {
    return refuse(
        fmt::format("Backing file specified without backing format\nDetected format of {}.", driver));
  }
  if (!values.contains("size")) {
    values["size"] = size;
  }
  return {};
}

}  // namespace

bool is_creatable(const std::string& format) { return find_image_format(format) != nullptr; }

namespace {

Result<Options> read_values_of(const NewTarget& target, const ImageFormat& format,
                               std::vector<OptionSpec>& specs) {
  specs = all_options(format, true);
  std::vector<GivenOption> given;
  for (const auto& text : target.options) {
    for (auto& option : split_option_list(text)) {
      given.push_back(std::move(option));
    }
  }
  return read_values(specs, given);
}

/// Makes the image on something that is there already and is no file, such as a server's export.
Result<void> create_in_place(Ring& ring, const NewTarget& target, const Options& values) {
  auto flags = target.backing_flags;
  flags.read_only = false;
  auto opened = open_node(ring, NodeName::of_file(target.path, "raw"), flags);
  if (!opened) {
    return std::unexpected(opened.error());
  }
  auto done = find_image_format(target.format)->create_on(ring, *opened->device, values);
  auto closed = sync_wait(ring, opened->device->close());  // in any case: a connection has work under way
  return done ? closed : done;
}

}  // namespace

Result<Options> read_target_options(const NewTarget& target, std::vector<OptionSpec>& specs) {
  const auto* const format = find_image_format(target.format);
  if (format == nullptr) {
    return refuse(is_known_driver(target.format)
                      ? fmt::format("Format driver '{}' does not support image creation", target.format)
                      : fmt::format("Unknown file format '{}'", target.format));
  }
  if (has_protocol(target.path) && protocol_of(target.path) != "file") {
    const auto protocol = protocol_of(target.path);
    for (const auto& driver : protocol_drivers()) {
      if (fmt::format(" {} ", driver.prefixes).find(fmt::format(" {} ", protocol)) != std::string::npos) {
        if (format->create_on != nullptr) {
          return read_values_of(target, *format, specs);
        }
        return refuse(fmt::format("Protocol driver '{}' does not support image creation", driver.name));
      }
    }
    return refuse(is_known_driver(protocol)
                      ? fmt::format("Protocol driver '{}' does not support image creation", protocol)
                      : fmt::format("Unknown protocol '{}'", protocol));
  }
  return read_values_of(target, *format, specs);
}

int print_creation_help(const Call& call, const std::string& format, const std::string& path) {
  std::vector<OptionSpec> specs;
  if (const auto known = read_target_options({.path = path, .format = format}, specs); !known) {
    complain(call, tool_text(known.error()));
    return 1;
  }
  const bool file = !path.empty() && (!has_protocol(path) || protocol_of(path) == "file");
  fmt::print("Supported {}options:\n", path.empty() ? format + " " : "");
  print_option_help(all_options(*find_image_format(format), file));
  if (path.empty()) {
    fmt::print(
        "\nThe protocol level may support further options.\nSpecify the target filename to include those "
        "options.\n");
  }
  return 0;
}

Options target_keys(const NewTarget& target) {
  Options keys = Options::object();
  std::vector<OptionSpec> specs;
  const auto values = read_target_options(target, specs);
  if (!values) {
    return keys;  // create_target() complains
  }
  if (const auto secret = option_text(*values, "encrypt.key-secret")) {
    keys["encrypt"]["key-secret"] = *secret;
  }
  if (const auto secret = option_text(*values, "key-secret")) {
    keys["key-secret"] = *secret;
  }
  return keys;
}

Result<void> create_target(Ring& ring, const NewTarget& target) {
  std::vector<OptionSpec> specs;
  auto values = read_target_options(target, specs);
  if (!values) {
    return std::unexpected(values.error());
  }
  if (target.size) {
    if (values->contains("size") && !target.size_is_given) {
      return refuse("The image size must be specified only once");
    }
    (*values)["size"] = *target.size;
  }
  if (auto ok = take_backing(target, specs, *values); !ok) {
    return ok;
  }
  if (const auto backing = option_text(*values, "backing_file")) {
    if (backing->empty()) {
      return refuse("Expected backing file name, got empty string");
    }
    // By its name, or by another: it would be emptied.
    if (*backing == target.path || same_file(combine_names(target.path, *backing), target.path)) {
      return refuse("Error: Trying to create an image with the same filename as the backing file");
    }
  }
  if (auto ok = look_at_backing(ring, target, *values); !ok) {
    return ok;
  }
  if (!values->contains("size")) {
    return refuse("Image creation needs a size parameter");
  }
  if (target.announce) {
    fmt::print("Formatting '{}', fmt={}{}\n", target.path, target.format, show_values(specs, *values));
    std::fflush(stdout);
  }
  const bool file = !has_protocol(target.path) || protocol_of(target.path) == "file";
  return file ? find_image_format(target.format)->create(ring, target.path, *values)
              : create_in_place(ring, target, *values);
}

}  // namespace whistler::tools
