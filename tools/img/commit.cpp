// img commit: what an overlay holds goes into the image it stands on.
#include <fmt/format.h>

#include <cstdlib>

#include "block/qcow2/image.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/copier.hpp"
#include "tools/img/messages.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"
#include "tools/img/progress.hpp"

namespace whistler::tools {

namespace {

constexpr option kOptions[] = {{"help", no_argument, nullptr, 'h'},
                               {"object", required_argument, nullptr, kObject},
                               {"image-opts", no_argument, nullptr, kImageOpts},
                               {nullptr, 0, nullptr, 0}};

struct Settings {
  ImageArgument image = {.name = {}, .gives_space_back = true};
  NodeFlags flags;
  std::string base;
  bool drop = false;
  bool progress = false;
  bool quiet = false;
  std::uint64_t bytes_per_second = 0;
};

/// The node of that name below `top`; without a name, the one next below.
const Node* find_base(const Node& top, const std::string& name) {
  const Node* node = top.backing.get();
  if (name.empty()) {
    return node;
  }
  const auto wanted = resolve_stored_name(top, name).value_or(name);
  for (; node != nullptr; node = node->backing.get()) {
    const bool says_all = name.starts_with("json:") || has_protocol(name);
    if (says_all ? node->filename == name : same_file(node->exact_filename, wanted)) {
      break;
    }
  }
  return node;
}

class Commit {
 public:
  Commit(const Call& call, Ring& ring, const Settings& settings)
      : call_(call), ring_(ring), settings_(settings) {}

  int run() {
    auto shared = settings_.flags;
    shared.read_only = true;
    std::size_t depth = 0;  // of the base in the chain
    NodeName base_name;
    {
      // First everything is looked at; then the base is opened for writing, which nobody else may have open.
      auto chain = open_argument(call_, ring_, settings_.image, shared);
      if (!chain) {
        return 1;
      }
      if (chain->node->probed && chain->node->driver == "raw") {
        warn_of_probed_raw(chain->node->file->filename);  // it is opened for reading only so far
      }
      if (!chain->node->backing) {
        complain(call_, settings_.base.empty() ? std::string("Image does not have a backing file")
                                               : fmt::format("Did not find '{}' in the backing chain of '{}'",
                                                             settings_.base, settings_.image.name));
        return 1;
      }
      const Node* base = find_base(*chain->node, settings_.base);
      if (base == nullptr) {
        complain(call_, fmt::format("Did not find '{}' in the backing chain of '{}'", settings_.base,
                                    settings_.image.name));
        return 1;
      }
      for (const Node* node = chain->node.get(); node != base; node = node->backing.get()) {
        ++depth;
      }
      base_name = name_of(*base);
      if (!close_image(call_, ring_, *chain)) {
        return 1;
      }
    }
    auto flags = settings_.flags;
    flags.read_only = false;
    auto opened = open_node(ring_, base_name, flags);
    if (!opened) {
      complain(call_, tool_text(opened.error()));
      return 1;
    }
    OpenImage base(std::move(*opened), ring_);
    flags.ignore_backing = true;
    auto top = open_argument(call_, ring_, settings_.image, flags);
    if (!top) {
      return 1;
    }
    const int status = copy(base, depth);
    if (status == 0 && !settings_.drop) {
      if (top->node->qcow2 != nullptr) {
        const auto emptied = sync_wait(ring_, top->node->qcow2->make_empty());
        if (!emptied) {
          complain(call_,
                   fmt::format("Failed to empty {}: {}", settings_.image.name, reason_of(emptied.error())));
          return 1;
        }
      }
    }
    const bool closed = close_image(call_, ring_, base) && close_image(call_, ring_, *top);
    if (status == 0 && closed && !settings_.quiet) {
      fmt::print("Image committed.\n");
    }
    return closed ? status : 1;
  }

 private:
  int copy(OpenNode& base, std::size_t depth) {
    auto flags = settings_.flags;
    flags.read_only = true;
    flags.lock = false;  // this run holds the locks already
    auto chain = open_argument(call_, ring_, settings_.image, flags);
    if (!chain) {
      return 1;
    }
    const Node* below = chain->node.get();
    for (std::size_t i = 0; i < depth; ++i) {
      below = below->backing.get();
    }
    const auto size = chain->device->size();
    Result<void> done;
    if (base.device->size() < size) {
      done = sync_wait(ring_, base.device->resize(size));
      if (!done) {
        complain(call_, fmt::format("Could not resize image: {}", tool_text(done.error())));
        return 1;
      }
    }
    Progress progress(settings_.progress && !settings_.quiet);
    CopyOptions options{.target_has_backing = true,
                        .may_unmap = true,
                        .detect_zeroes = false,
                        .bytes_per_second = settings_.bytes_per_second};
    Copier copier({{.device = chain->device.get(), .bytes = size, .base = below->device}}, *base.device,
                  options, progress, [](const std::string&) {});
    done = sync_wait(ring_, copier.run());
    if (done) {
      done = sync_wait(ring_, base.device->flush());
    }
    if (!done) {
      complain(call_,
               fmt::format("Block job failed: {}",
                           reason_of(copier.failed_request() ? *copier.failed_request() : done.error())));
      return 1;
    }
    progress.show(100);
    return close_image(call_, ring_, *chain) ? 0 : 1;
  }

  const Call& call_;
  Ring& ring_;
  const Settings& settings_;
};

}  // namespace

int img_commit(const Call& call) {
  Settings settings;
  std::string cache = "writeback";
  OptionReader reader(call, "hf:t:b:dpqr:", kOptions);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_main({call.program, {"--help"}});
      case 'f': settings.image.format = reader.argument(); break;
      case 't': cache = reader.argument(); break;
      case 'b':
        settings.base = reader.argument();
        settings.drop = true;  // what lies between would be wrong afterwards
        break;
      case 'd': settings.drop = true; break;
      case 'p': settings.progress = true; break;
      case 'q': settings.quiet = true; break;
      case 'r': {
        const auto rate = parse_number(call, "rate limit", reader.argument());
        if (!rate) {
          return 1;
        }
        settings.bytes_per_second = *rate;
        break;
      }
      case kObject:
        if (!add_object(call, reader.argument(), settings.flags)) {
          return 1;
        }
        break;
      case kImageOpts: settings.image.image_opts = true; break;
      default: break;
    }
  }
  if (reader.failed()) {
    return 1;
  }
  const auto operands = reader.operands();
  if (operands.size() != 1) {
    return complain_with_help(call, "Expecting one image file name");
  }
  settings.image.name = operands[0];
  const auto mode = parse_cache(cache);
  if (!mode) {
    complain(call, fmt::format("Invalid cache option: {}", cache));
    return 1;
  }
  settings.flags.cache = *mode;
  const auto ring = make_ring(call);
  return ring ? Commit(call, *ring, settings).run() : 1;
}

}  // namespace whistler::tools
