#include "vmm/monitor/qmp_chain.hpp"

#include <fmt/format.h>

#include <optional>

#include "block/jobs/commit.hpp"
#include "block/jobs/mirror.hpp"
#include "block/jobs/stream.hpp"
#include "vmm/monitor/copy_target.hpp"
#include "vmm/monitor/job_arguments.hpp"
#include "vmm/monitor/qmp_media.hpp"

namespace whistler::qmp {
namespace {

/// How a command names one layer.
struct LayerName {
  std::string file, node;
  [[nodiscard]] bool given() const { return !file.empty() || !node.empty(); }

  /// Its place in the chain; nothing if it is not there.
  [[nodiscard]] std::optional<std::size_t> find(const Drive& drive, const std::vector<Layer>& layers) const {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (node.empty() ? is_called(layers[i], file) : node_name(drive, i) == node) {
        return i;
      }
    }
    return std::nullopt;
  }
};

std::string cannot_find(const LayerName& name) {
  return name.node.empty() ? fmt::format("Can't find '{}' in the backing chain", name.file)
                           : fmt::format("Cannot find device='' nor node-name='{}'", name.node);
}

/// The image of a layer, if it can be changed here.
Answer<qcow2::Image*> image_of(const Layer& layer) {
  auto* const image = dynamic_cast<qcow2::Image*>(layer.device);
  return image != nullptr ? Answer<qcow2::Image*>(image)
                          : refuse(fmt::format("'{}' is no qcow2 image", layer.file));
}

Answer<Json> start(MachineControl& machine, JobSettings settings, std::unique_ptr<JobWork> work) {
  machine.pc().jobs().start(std::move(settings), std::move(work));
  return Json::object();
}

}  // namespace

namespace {

/// What the command says of the end of what is taken in.
struct StreamEnd {
  LayerName base, bottom;
  std::string stored;  ///< the name to store of the base; empty: its own

  explicit StreamEnd(Arguments& arguments)
      : base{arguments.text_or("base", {}), arguments.text_or("base-node", {})},
        bottom{{}, arguments.text_or("bottom", {})},
        stored(arguments.text_or("backing-file", {})) {
    const auto both = [&](std::string_view one, std::string_view other) {
      arguments.fail(fmt::format("'{}' and '{}' cannot be specified at the same time", one, other));
    };
    if (!base.file.empty() && !base.node.empty()) {
      both("base", "base-node");
    } else if (!base.file.empty() && bottom.given()) {
      both("base", "bottom");
    } else if (!base.node.empty() && bottom.given()) {
      both("bottom", "base-node");
    }
  }

  /// What the drive's image is to stand on.
  [[nodiscard]] Answer<Stream::Base> find(const Drive& drive, const std::vector<Layer>& layers) const {
    std::size_t below = layers.size();
    if (bottom.given()) {
      const auto place = bottom.find(drive, layers);
      if (!place) {
        return refuse(cannot_find(bottom));
      }
      below = *place + 1;
    } else if (base.given()) {
      const auto place = base.find(drive, layers);
      if (!place || *place == 0) {
        return refuse(cannot_find(base));
      }
      below = *place;
    }
    if (below == layers.size()) {
      return stored.empty() ? Answer<Stream::Base>(Stream::Base{})
                            : refuse("backing file specified, but streaming the entire chain");
    }
    const auto& layer = layers[below];
    return Stream::Base{
        .device = layer.device, .name = stored.empty() ? layer.file : stored, .format = layer.format};
  }
};

}  // namespace

Answer<Json> block_stream(MachineControl& machine, Arguments& arguments) {
  const auto device = arguments.text("device");
  const StreamEnd end(arguments);
  auto settings = take_job_settings(arguments);
  settings.on_source_error = settings.on_target_error = take_error_policy(arguments, "on-error");
  static_cast<void>(arguments.text_or("filter-node-name", {}));
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  const std::scoped_lock lock(machine.pc().lock());
  DriveClaims claims(machine.pc().jobs());
  const auto found = idle_drive(machine, claims, device);
  if (!found) {
    return std::unexpected(found.error());
  }
  Drive& drive = **found;
  const auto layers = layers_of(drive);
  auto below = end.find(drive, layers);
  if (!below) {
    return std::unexpected(below.error());
  }
  if (drive.image()->read_only()) {
    return refuse(fmt::format("Device '{}' is read only", drive.description().id));
  }
  const auto top = image_of(layers[0]);
  if (!top) {
    return std::unexpected(top.error());
  }
  if (auto settled = settle_job(claims, drive, settings); !settled) {
    return std::unexpected(settled.error());
  }
  return start(machine, std::move(settings),
               std::make_unique<Stream>(*drive.image(), **top, std::move(*below)));
}

namespace {

/// What a block-commit is to do, once its layers are found.
struct CommitPlan {
  Drive& drive;
  std::vector<Layer> layers;
  std::size_t top, base;
  std::string stored;  ///< the name to store of the base; empty: its own
};

Answer<std::unique_ptr<JobWork>> commit_active(const CommitPlan& plan) {
  const auto top = image_of(plan.layers[0]);
  if (!top) {
    return std::unexpected(top.error());
  }
  const auto& base = plan.layers[plan.base];
  if (!plan.stored.empty()) {
    return refuse("'backing-file' specified, but 'top' is the active layer");
  }
  if (base.device->size() > plan.drive.image()->size()) {
    return refuse(fmt::format("'{}' is larger than the disk", base.file));
  }
  Mirror::Settings settings;
  settings.pivoted = [&drive = plan.drive, file = base.file, format = base.format] {
    drive.renamed(file, format);
  };
  return std::make_unique<Mirror>(*plan.drive.image(), **top,
                                  Mirror::Base{base.device, base.file, base.format}, std::move(settings));
}

Answer<std::unique_ptr<JobWork>> commit_layers(const CommitPlan& plan) {
  const auto overlay = image_of(plan.layers[plan.top - 1]);
  if (!overlay) {
    return std::unexpected(overlay.error());
  }
  const auto& top = plan.layers[plan.top];
  const auto& base = plan.layers[plan.base];
  // Behind the end of a shorter layer there are zeroes, which a longer base would no longer show.
  if (base.device->size() > top.device->size() && (*overlay)->size() > top.device->size()) {
    return refuse(fmt::format("'{}' is larger than '{}'", base.file, top.file));
  }
  Commit::Place place;
  place.overlay = *overlay;
  place.top = top.device;
  place.base = base.device;
  place.name = plan.stored.empty() ? base.file : plan.stored;
  place.format = base.format;
  return std::make_unique<Commit>(*plan.drive.image(), std::move(place));
}

}  // namespace

Answer<Json> block_commit(MachineControl& machine, Arguments& arguments) {
  const auto device = arguments.text("device");
  const LayerName top{arguments.text_or("top", {}), arguments.text_or("top-node", {})};
  const LayerName base{arguments.text_or("base", {}), arguments.text_or("base-node", {})};
  const auto stored = arguments.text_or("backing-file", {});
  auto settings = take_job_settings(arguments);
  settings.on_source_error = settings.on_target_error = take_error_policy(arguments, "on-error");
  static_cast<void>(arguments.text_or("filter-node-name", {}));
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  const std::scoped_lock lock(machine.pc().lock());
  if (find_drive(machine, device) == nullptr) {
    return std::unexpected(Refusal{.error_class = "DeviceNotFound",
                                   .description = fmt::format("Device '{}' not found", device)});
  }
  DriveClaims claims(machine.pc().jobs());
  const auto found = idle_drive(machine, claims, device);
  if (!found) {
    return std::unexpected(found.error());
  }
  for (const auto& [name, word] : {std::pair(&top, "top"), std::pair(&base, "base")}) {
    if (!name->file.empty() && !name->node.empty()) {
      return refuse(fmt::format("'{}-node' and '{}' are mutually exclusive", word, word));
    }
  }
  CommitPlan plan{**found, layers_of(**found), 0, 0, stored};
  plan.base = plan.layers.size() - 1;
  if (top.given()) {
    const auto place = top.find(plan.drive, plan.layers);
    if (!place) {
      return refuse(top.node.empty() ? fmt::format("Top image file {} not found", top.file)
                                     : cannot_find(top));
    }
    plan.top = *place;
  }
  if (base.given()) {
    const auto place = base.find(plan.drive, plan.layers);
    if (!place) {
      return refuse(cannot_find(base));
    }
    plan.base = *place;
  }
  if (plan.base == plan.top) {
    return refuse("cannot commit an image into itself");
  }
  if (plan.base < plan.top) {
    return refuse(fmt::format("'{}' is not in this backing file chain", plan.layers[plan.base].file));
  }
  if (auto settled = settle_job(claims, plan.drive, settings); !settled) {
    return std::unexpected(settled.error());
  }
  auto work = plan.top == 0 ? commit_active(plan) : commit_layers(plan);
  if (!work) {
    return std::unexpected(work.error());
  }
  return start(machine, std::move(settings), std::move(*work));
}

Task<Answer<Json>> drive_mirror(MachineControl& machine, Arguments arguments) {
  const auto device = arguments.text("device");
  auto settings = take_job_settings(arguments);
  settings.on_source_error = take_error_policy(arguments, "on-source-error");
  settings.on_target_error = take_error_policy(arguments, "on-target-error");
  auto target = CopyTarget::take(arguments, take_copy_sync(arguments));
  // How QEMU does it; the result is the same.
  for (const auto* key : {"granularity", "buf-size"}) {
    static_cast<void>(arguments.number_or(key, 0));
  }
  static_cast<void>(arguments.flag_or("unmap", true));
  static_cast<void>(arguments.text_or("copy-mode", "background"));
  if (auto sound = arguments.finish(); !sound) {
    co_return std::unexpected(sound.error());
  }
  DriveClaims claims(machine.pc().jobs());
  const auto found = idle_drive(machine, claims, device);
  if (!found) {
    co_return std::unexpected(found.error());
  }
  auto* const drive = *found;
  if (auto settled = settle_job(claims, *drive, settings); !settled) {
    co_return std::unexpected(settled.error());
  }
  target.settle(*drive);
  Answer<Target> opened;
  {
    PendingWork::Patience patience(machine.pc().pending());
    opened = co_await target.open(machine.pc().ring(), *drive, patience.stop());
  }
  if (!opened) {
    co_return std::unexpected(opened.error());
  }
  Mirror::Settings mirror;
  mirror.sync = target.sync;
  mirror.cluster = opened->cluster;
  mirror.pivoted = [drive, file = absolute_name(target.file), format = target.format] {
    drive->renamed(file, format);
  };
  auto work = std::make_unique<Mirror>(*drive->image(), std::move(opened->image), std::move(mirror));
  co_return start(machine, std::move(settings), std::move(work));
}

Answer<Json> query_named_block_nodes(MachineControl& machine, Arguments& arguments) {
  static_cast<void>(arguments.flag_or("flat", false));
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  const std::scoped_lock lock(machine.pc().lock());
  Json list = Json::array();
  for (const auto& drive : machine.pc().drives()) {
    if (drive->image() == nullptr) {
      continue;
    }
    const auto layers = layers_of(*drive);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto& layer = layers[i];
      Json node = inserted(*drive);
      node["node-name"] = node_name(*drive, i);
      node["file"] = layer.file;
      node["drv"] = layer.format;
      node["ro"] = layer.device->read_only();
      node["backing_file_depth"] = layers.size() - 1 - i;
      node["image"] = {{"virtual-size", layer.device->size()},
                       {"filename", layer.file},
                       {"format", layer.format},
                       {"actual-size", host_bytes_of(layer.file)},
                       {"dirty-flag", false}};
      node.erase("backing_file");
      if (i + 1 < layers.size()) {
        node["backing_file"] = layers[i + 1].file;
        node["image"]["backing-filename"] = layers[i + 1].file;
        node["image"]["full-backing-filename"] = layers[i + 1].file;
      }
      list.push_back(std::move(node));
    }
  }
  for (const auto& [name, entry] : machine.pc().nodes().all()) {
    const auto& device = *entry->open.device;
    const auto& node = *entry->open.node;
    list.push_back(
        {{"node-name", name},
         {"file", node.filename},
         {"drv", node.driver},
         {"ro", device.read_only()},
         {"encrypted", false},
         {"backing_file_depth", 0},
         {"detect_zeroes", "off"},
         {"write_threshold", 0},
         {"image", {{"virtual-size", device.size()}, {"filename", node.filename}, {"format", node.driver}}}});
  }
  return list;
}

}  // namespace whistler::qmp
