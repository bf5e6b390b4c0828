// img snapshot: lists, makes, applies and deletes internal snapshots.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "block/qcow2/snapshots.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/image_info.hpp"
#include "tools/img/messages.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"

namespace whistler::tools {

namespace {

Result<void> create(Ring& ring, const Node& node, const std::string& name) {
  using namespace std::chrono;
  const auto now = system_clock::now().time_since_epoch();
  const auto whole = duration_cast<seconds>(now);
  qcow2::Snapshot snapshot{
      .name = name,
      .date_seconds = static_cast<std::uint32_t>(whole.count()),
      .date_nanoseconds = static_cast<std::uint32_t>(duration_cast<microseconds>(now - whole).count() * 1000),
      .instruction_count = 0};
  return sync_wait(ring, qcow2::Snapshots(*node.qcow2).create(std::move(snapshot)));
}

int list(const Call& call, Ring& ring, const Node& node) {
  const auto snapshots = list_snapshots(ring, node);
  if (!snapshots) {
    complain(call, tool_text(snapshots.error()));
    return 1;
  }
  if (!snapshots->empty()) {
    fmt::print("Snapshot list:\n{}", show_snapshots(snapshots_info(*snapshots)));
  }
  return 0;
}

/// Takes names only, though apply() takes ids as well: what was meant to stay must not be deleted.
int remove(const Call& call, Ring& ring, qcow2::Snapshots& snapshots, const std::string& name) {
  const auto refuse = [&](const std::string& why) {
    complain(call, fmt::format("Could not delete snapshot '{}': {}", name, why));
    return 1;
  };
  const auto list = sync_wait(ring, snapshots.list());
  if (!list) {
    return refuse(tool_text(list.error()));
  }
  const auto found = std::find_if(list->begin(), list->end(),
                                  [&](const qcow2::Snapshot& snapshot) { return snapshot.name == name; });
  if (found == list->end()) {
    return refuse("snapshot not found");
  }
  const auto done = sync_wait(ring, snapshots.remove(found->id));
  return done ? 0 : refuse(tool_text(done.error()));
}

int change(const Call& call, Ring& ring, const Node& node, int action, const std::string& name) {
  if (node.qcow2 == nullptr) {
    switch (action) {
      case 'c':
        complain(call, fmt::format("Could not create snapshot '{}': {} ({})", name, -ENOTSUP,
                                   std::generic_category().message(ENOTSUP)));
        return 1;
      case 'a':
        if (node.probed && node.driver == "raw") {
          warn_of_probed_raw(node.file->filename);  // QEMU opens it a second time
        }
        complain(call, fmt::format("Could not apply snapshot '{}': Block driver does not support "
                                   "snapshots",
                                   name));
        return 1;
      default:
        complain(call, fmt::format("Could not delete snapshot '{}': snapshot not found", name));
        return 1;
    }
  }
  if (action == 'c') {
    const auto done = create(ring, node, name);
    if (!done) {
      complain(call, fmt::format("Could not create snapshot '{}': {} ({})", name, -errno_of(done.error()),
                                 reason_of(done.error())));
    }
    return done ? 0 : 1;
  }
  qcow2::Snapshots snapshots(*node.qcow2);
  if (action == 'a') {
    const auto done = sync_wait(ring, snapshots.apply(name));
    if (!done) {
      complain(call,
               fmt::format("Could not apply snapshot '{}': {}", name,
                           done.error().brief.empty() ? "Failed to load snapshot: " + reason_of(done.error())
                                                      : done.error().brief));
    }
    return done ? 0 : 1;
  }
  return remove(call, ring, snapshots, name);
}

}  // namespace

int img_snapshot(const Call& call) {
  static const option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                  {"object", required_argument, nullptr, kObject},
                                  {"image-opts", no_argument, nullptr, kImageOpts},
                                  {"force-share", no_argument, nullptr, 'U'},
                                  {nullptr, 0, nullptr, 0}};
  ImageArgument image;
  NodeFlags flags{.read_only = false};
  int action = 0;
  std::string name;
  OptionReader reader(call, "la:c:d:hqU", kLongs);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_help(call);
      case 'q': break;
      case 'U': flags.force_share = true; break;
      case 'l':
      case 'a':
      case 'c':
      case 'd':
        if (action != 0) {
          return complain_with_help(call, "Cannot mix '-l', '-a', '-c', '-d'");
        }
        action = code;
        name = code == 'l' ? "" : reader.argument();
        break;
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
  image.name = operands[0];
  flags.read_only = action == 'l';
  if (flags.force_share && !flags.read_only) {
    complain(call, fmt::format("Could not open '{}': force-share=on can only be used with read-only images",
                               image.name));
    return 1;
  }
  const auto ring = make_ring(call);
  auto opened = ring ? open_argument(call, *ring, image, flags) : std::nullopt;
  if (!opened) {
    return 1;
  }
  int status = 0;
  if (action == 'l') {
    status = list(call, *ring, *opened->node);
  } else if (action != 0) {
    status = change(call, *ring, *opened->node, action, name);
  }
  return close_image(call, *ring, *opened) ? status : 1;
}

}  // namespace whistler::tools
