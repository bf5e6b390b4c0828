#include "vmm/monitor/qmp_nodes.hpp"

#include <fmt/format.h>

#include "block/jobs/backup.hpp"
#include "block/qcow2/image.hpp"
#include "vmm/monitor/drive_action.hpp"
#include "vmm/monitor/job_arguments.hpp"
#include "vmm/monitor/qmp_media.hpp"
#include "vmm/monitor/wait_for.hpp"

namespace whistler::qmp {
namespace {

/// Begins a backup to a node. blockdev-backup has nothing to prepare: the node is open already.
class BeginNodeBackup final : public DriveAction {
 public:
  BeginNodeBackup(MachineControl& machine, Drive& drive, JobSettings settings, std::string node,
                  CopySync sync)
      : machine_(machine),
        drive_(drive),
        settings_(std::move(settings)),
        node_(std::move(node)),
        sync_(sync) {}

  [[nodiscard]] DriveImage* drive() override { return drive_.image(); }
  [[nodiscard]] Task<Answer<void>> prepare() override { co_return Answer<void>{}; }
  [[nodiscard]] Task<Answer<void>> freeze() override { co_return Answer<void>{}; }

  void commit() override {
    auto& nodes = machine_.pc().nodes();
    const auto* const image = nodes.find(node_)->open.node->qcow2;
    const auto cluster = image != nullptr ? image->header().geometry().cluster_size() : 0;
    auto work = std::make_unique<Backup>(*drive_.image(), nodes.lend(node_), sync_, cluster);
    work->begin();
    machine_.pc().jobs().start(std::move(settings_), std::move(work));
  }

  [[nodiscard]] Task<void> abort() override { co_return; }

 private:
  MachineControl& machine_;
  Drive& drive_;
  JobSettings settings_;
  std::string node_;
  CopySync sync_;
};

Task<Result<OpenNode>> open_writable(Ring& ring, Options options) {
  NodeName name;
  name.options = std::move(options);
  NodeFlags flags;
  flags.read_only = false;
  flags.inline_writes = false;
  auto opened = co_await open_node_task(ring, std::move(name), flags);
  co_return opened;
}

}  // namespace

Answer<Json> add_node(MachineControl& machine, Arguments& arguments) {
  auto options = arguments.rest();
  for (const auto* key : {"driver", "node-name"}) {
    if (!options.contains(key) || !options[key].is_string()) {
      return refuse(fmt::format("Parameter '{}' is missing", key));
    }
  }
  const auto name = options["node-name"].get<std::string>();
  {
    const std::scoped_lock lock(machine.pc().lock());
    if (machine.pc().nodes().find(name) != nullptr || find_drive(machine, name) != nullptr) {
      return refuse(fmt::format("Duplicate nodes with node-name='{}'", name));
    }
  }
  auto opened = wait_for(machine, open_writable(machine.pc().ring(), std::move(options)));
  if (!opened) {
    return refuse(tool_text(opened.error()));
  }
  const std::scoped_lock lock(machine.pc().lock());
  machine.pc().nodes().add(name, std::move(*opened));
  return Json::object();
}

Answer<Json> delete_node(MachineControl& machine, Arguments& arguments) {
  const auto name = arguments.text("node-name");
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  OpenNode node;
  {
    const std::scoped_lock lock(machine.pc().lock());
    const auto* const entry = machine.pc().nodes().find(name);
    if (entry == nullptr) {
      return find_drive(machine, name) != nullptr
                 ? refuse(fmt::format("Node {} is in use", name))
                 : refuse(fmt::format("Failed to find node with node-name='{}'", name));
    }
    if (entry->lent) {
      return refuse(fmt::format("Node {} is in use", name));
    }
    node = machine.pc().nodes().remove(name);
  }
  const auto closed = wait_for(machine, node.device->close());
  return closed ? Answer<Json>(Json::object()) : refuse(closed.error().message);
}

MadeAction make_node_backup_action(MachineControl& machine, Arguments& arguments) {
  const auto device = arguments.text("device");
  const auto target = arguments.text("target");
  auto settings = take_job_settings(arguments);
  settings.on_source_error = take_error_policy(arguments, "on-source-error");
  settings.on_target_error = take_error_policy(arguments, "on-target-error");
  auto sync = take_copy_sync(arguments);
  static_cast<void>(arguments.text_or("filter-node-name", {}));
  if (arguments.flag_or("compress", false)) {
    arguments.fail("Compression is not supported for this drive");
  }
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  const std::scoped_lock lock(machine.pc().lock());
  const auto drive = idle_drive(machine, device);
  if (!drive) {
    return std::unexpected(drive.error());
  }
  const auto* const node = machine.pc().nodes().find(target);
  if (node == nullptr) {
    return no_such_drive(target, target);
  }
  if (node->lent) {
    return refuse(fmt::format("Node '{}' is busy: it is the target of another job", target));
  }
  if (node->open.device->read_only()) {
    return refuse(fmt::format("Node '{}' is read only", target));
  }
  if (node->open.device->size() != (*drive)->image()->size()) {
    return refuse("Source and target image have different sizes");
  }
  if (sync == CopySync::kTop && layers_of(**drive).size() == 1) {
    sync = CopySync::kFull;
  }
  if (auto settled = settle_job(machine, **drive, settings); !settled) {
    return std::unexpected(settled.error());
  }
  return std::make_unique<BeginNodeBackup>(machine, **drive, std::move(settings), target, sync);
}

}  // namespace whistler::qmp
