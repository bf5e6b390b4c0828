#include "tools/img/opening.hpp"

#include "tools/objects.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "block/node_drivers.hpp"

namespace whistler::tools {

namespace {

/// Whether the image, or one that shows through it, lies in the file `path`.
bool uses_file(const Node& image, const std::string& path) {
  const auto below = [&](const std::unique_ptr<Node>& node) { return node && uses_file(*node, path); };
  return (image.host_file != nullptr && same_file(image.host_file->name(), path)) || below(image.file) ||
         below(image.data_file) || below(image.backing) || std::ranges::any_of(image.others, below);
}

}  // namespace

OpenImage& OpenImage::operator=(OpenImage&& other) noexcept {
  if (this != &other) {
    close_quietly();
    static_cast<OpenNode&>(*this) = std::move(static_cast<OpenNode&>(other));
    ring_ = other.ring_;
  }
  return *this;
}

void OpenImage::close_quietly() noexcept {
  if (device) {
    const auto closed = sync_wait(*ring_, device->close());
    static_cast<void>(closed);  // another failure is being told, or it was only read
  }
}

std::unique_ptr<Ring> make_ring(const Call& call) {
  auto ring = Ring::create_for_tool();
  if (!ring) {
    complain(call, ring.error().message);
    return nullptr;
  }
  return std::move(*ring);
}

namespace {

/// Of options for a node: whether zeroes that are written are to give space back, though nothing else does.
bool unmaps_without_discard(const Options& options, bool gives_space_back) {
  const auto discard = option_text(options, "discard").value_or(gives_space_back ? "unmap" : "ignore");
  return option_text(options, "detect-zeroes") == "unmap" && (discard == "ignore" || discard == "off");
}

}  // namespace

std::optional<OpenImage> open_argument(const Call& call, Ring& ring, const ImageArgument& image,
                                       const NodeFlags& flags) {
  NodeName name;
  if (image.image_opts) {
    if (!image.format.empty()) {
      complain(call, "--image-opts and --format are mutually exclusive");
      return std::nullopt;
    }
    const auto options = parse_dotted_options(image.name, "driver");
    if (!options) {
      complain(call, tool_text(options.error()));
      return std::nullopt;
    }
    name.options = nest_options(*options);
  } else {
    name = NodeName::of_file(image.name, image.format.empty() ? std::nullopt : std::optional(image.format));
  }
  name.options.update(image.more);
  if (unmaps_without_discard(name.options, image.gives_space_back)) {
    complain(call, fmt::format("Could not open '{}': setting detect-zeroes to unmap is not allowed without "
                               "setting discard operation to unmap",
                               image.name));
    return std::nullopt;
  }
  auto opened = open_node(ring, name, flags);
  if (!opened) {
    complain(call, fmt::format("Could not open '{}': {}", image.name, tool_text(opened.error())));
    return std::nullopt;
  }
  return OpenImage(std::move(*opened), ring);
}

bool add_object(const Call& call, const std::string& text, NodeFlags& flags) {
  flags.secrets = &secrets();
  const auto defined = define_object(text);
  if (!defined) {
    complain(call, defined.error().message);
  }
  return defined.has_value();
}

std::string host_path(std::string name) {
  if (name.starts_with("file:")) {
    name.erase(0, 5);
  }
  return name;
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat first{};
  struct stat second{};
  return ::stat(host_path(a).c_str(), &first) == 0 && ::stat(host_path(b).c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

bool spares_source(const Call& call, const Node& source, const std::string& target) {
  if (!uses_file(source, target)) {
    return true;
  }
  complain(call,
           fmt::format("{}: the source lies in this file too: give the copy a name of its own", target));
  return false;
}

bool is_format(const std::string& name) { return is_known_driver(name); }

bool close_image(const Call& call, Ring& ring, OpenNode& image) {
  if (!image.device) {
    return true;
  }
  const auto closed = sync_wait(ring, image.device->close());
  image.device.reset();
  image.node.reset();
  if (!closed) {
    complain(call, tool_text(closed.error()));
  }
  return closed.has_value();
}

NodeName name_of(const Node& node) {
  if (!node.exact_filename.empty()) {
    return NodeName::of_file(node.exact_filename, node.driver);
  }
  NodeName name;
  name.options = nest_options(node.full_options);  // some of them are told as "a.b"
  return name;
}

}  // namespace whistler::tools
