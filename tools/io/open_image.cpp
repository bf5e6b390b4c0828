#include "tools/io/open_image.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "block/copy_on_read.hpp"
#include "block/create.hpp"
#include "block/qcow2/image.hpp"
#include "tools/objects.hpp"

namespace whistler::tools::io {

namespace {

std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kInvalid, std::move(text)); }

/// Warns, as QEMU does, of each word that is no KEY=VALUE.
void warn_of_switches(const Session& session, std::string_view text) {
  for (std::size_t at = 0; at <= text.size();) {
    auto end = text.find(',', at);
    while (end != std::string_view::npos && text.substr(end, 2) == ",,") {
      end = text.find(',', end + 2);
    }
    const auto part = text.substr(at, end - at);
    if (part.find('=') == std::string_view::npos) {
      const bool off = part.starts_with("no");
      session.complain(fmt::format("warning: short-form boolean option '{}' deprecated", part));
      fmt::print(stderr, "Please use {}={} instead\n", off ? part.substr(2) : part, off ? "off" : "on");
    }
    if (end == std::string_view::npos) {
      break;
    }
    at = end + 1;
  }
}

}  // namespace

Result<void> add_options(const Session& session, const std::string& text, Options& options) {
  warn_of_switches(session, text);
  auto flat = parse_dotted_options(text);
  if (!flat) {
    return std::unexpected(flat.error());
  }
  options.merge_patch(nest_options(*flat));
  return {};
}

Result<NodeName> name_of_request(const Session& session, const OpenRequest& request) {
  NodeName name;
  if (request.joined) {
    name.options = *request.joined;
    const bool is_tree = request.image_options || request.name.starts_with("json:");
    name.filename = is_tree ? "" : request.name;
    return name;
  }
  if (request.image_options) {
    if (auto ok = add_options(session, request.name, name.options); !ok) {
      return std::unexpected(ok.error());
    }
  } else {
    name.filename = request.name;
    if (request.name.starts_with("json:")) {
      auto parsed = parse_json_name(request.name);
      if (!parsed) {
        return std::unexpected(parsed.error());
      }
      name.options = std::move(*parsed);
      name.filename.clear();
    }
    if (!request.format.empty()) {
      name.options["driver"] = request.format;
    }
  }
  for (const auto& text : request.options) {
    if (auto ok = add_options(session, text, name.options); !ok) {
      return std::unexpected(ok.error());
    }
  }
  return name;
}

namespace {

/// A file nobody else has, removed when this goes out of scope; whoever has it open keeps it.
class TemporaryFile {
 public:
  TemporaryFile() {
    const char* const folder = std::getenv("TMPDIR");
    path_ = fmt::format("{}/vl.XXXXXX", folder != nullptr ? folder : "/var/tmp");
    const int file = ::mkstemp(path_.data());
    made_ = file >= 0;
    if (made_) {
      ::close(file);
    }
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (made_) {
      ::unlink(path_.c_str());
    }
  }
  [[nodiscard]] bool made() const { return made_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool made_ = false;
};

/// Opens the image below a new, empty overlay, which takes all writes and goes away in the end.
Result<OpenNode> open_below_overlay(Ring& ring, const NodeName& name, const NodeFlags& flags) {
  auto base_flags = flags;
  base_flags.read_only = true;
  auto base = open_node(ring, name, base_flags);
  if (!base) {
    return base;
  }
  const auto size = base->device->size();
  const auto below = base->node->full_options;
  if (auto closed = sync_wait(ring, base->device->close()); !closed) {
    return std::unexpected(closed.error());
  }
  base->device.reset();
  const TemporaryFile file;
  if (!file.made()) {
    return fail_errno(errno, "Could not get temporary filename");
  }
  if (auto made = create_image(ring, {.path = file.path(), .format = "qcow2", .size = size}); !made) {
    return std::unexpected(made.error());
  }
  NodeName overlay;
  overlay.options["driver"] = "qcow2";
  overlay.options["file"] = {{"driver", "file"}, {"filename", file.path()}};
  overlay.options["backing"] = below;
  return open_node(ring, overlay, flags);
}

}  // namespace

Result<OpenedImage> open_as_asked(Session& session, const OpenRequest& request) {
  if (request.force_share && !request.read_only) {
    return refuse("force-share=on can only be used with read-only images");
  }
  if (request.copy_on_read && request.read_only) {
    return refuse("Can't use copy-on-read on read-only device");
  }
  if (request.native_aio && !is_direct(request.cache)) {
    return refuse("aio=native was specified, but it requires cache.direct=on, which was not specified.");
  }
  const auto name = name_of_request(session, request);
  if (!name) {
    return std::unexpected(name.error());
  }
  const NodeFlags flags{.read_only = request.read_only,
                        .cache = request.cache,
                        .force_share = request.force_share,
                        .discard = request.discard,
                        .secrets = &secrets()};
  auto opened = request.snapshot ? open_below_overlay(session.ring(), *name, flags)
                                 : open_node(session.ring(), *name, flags);
  if (!opened) {
    return std::unexpected(opened.error());
  }
  OpenedImage image{std::move(opened->device), std::move(opened->node), {}, nullptr, request};
  image.format = image.node->driver;
  image.qcow2 = image.node->qcow2;
  if (request.copy_on_read && image.qcow2 != nullptr) {
    image.device = std::make_unique<CopyOnRead>(std::move(image.device),
                                                image.qcow2->header().geometry().cluster_size());
  }
  return image;
}

Result<OpenedImage> open_request(Session& session, OpenRequest request) {
  auto image = open_as_asked(session, request);
  if (!image) {
    const auto text = tool_text(image.error());
    return refuse(request.named && !request.image_options
                      ? fmt::format("can't open device {}: {}", request.name, text)
                      : fmt::format("can't open: {}", text));
  }
  return image;
}

bool take_cache(const Session& session, std::string_view value, OpenRequest& request) {
  const auto mode = parse_cache_mode(value == "off" ? "none" : value);
  if (!mode) {
    session.complain(fmt::format("Invalid cache option: {}", value));
    return false;
  }
  request.cache = *mode;
  return true;
}

bool take_discard(const Session& session, std::string_view value, OpenRequest& request) {
  if (value == "unmap" || value == "on") {
    request.discard = true;
  } else if (value == "ignore" || value == "off") {
    request.discard = false;
  } else {
    session.complain(fmt::format("Invalid discard option: {}", value));
    return false;
  }
  return true;
}

bool take_aio(const Session& session, std::string_view value, OpenRequest& request) {
  if (value != "threads" && value != "native" && value != "io_uring") {
    session.complain(fmt::format("Invalid aio option: {}", value));
    return false;
  }
  request.native_aio = value == "native";
  return true;
}

}  // namespace whistler::tools::io
