#include "vmm/monitor/qmp_nodes.hpp"

#include <fmt/format.h>

#include "block/jobs/backup.hpp"
#include "block/qcow2/image.hpp"
#include "vmm/monitor/drive_action.hpp"
#include "vmm/monitor/job_arguments.hpp"
#include "vmm/monitor/qmp_media.hpp"

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
  [[nodiscard]] Task<Answer<void>> prepare(Stop&) override { co_return Answer<void>{}; }
  [[nodiscard]] Task<Answer<void>> freeze() override { co_return Answer<void>{}; }

  void commit() override {
    auto& nodes = machine_.pc().nodes();
    const auto* const image = nodes.find(node_)->open.node->qcow2;
    const auto cluster = image != nullptr ? image->header().geometry().cluster_size() : 0;
    auto work = std::make_unique<Backup>(*drive_.image(), nodes.lend(node_), sync_, cluster);
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

Task<Result<OpenNode>> open_writable(Ring& ring, Options options, Stop& stop) {
  NodeName name;
  name.options = std::move(options);
  NodeFlags flags;
  flags.read_only = false;
  flags.inline_writes = false;
  flags.stop = &stop;
  auto opened = co_await open_node_task(ring, std::move(name), flags);
  co_return opened;
}

}  // namespace

Task<Answer<Json>> add_node(MachineControl& machine, Arguments arguments) {
  auto options = arguments.rest();
  for (const auto* key : {"driver", "node-name"}) {
    if (!options.contains(key) || !options[key].is_string()) {
      co_return refuse(fmt::format("Parameter '{}' is missing", key));
    }
  }
  const auto name = options["node-name"].get<std::string>();
  auto& nodes = machine.pc().nodes();
  if (find_drive(machine, name) != nullptr || !nodes.reserve(name)) {
    co_return refuse(fmt::format("Duplicate nodes with node-name='{}'", name));
  }
  PendingWork::Patience patience(machine.pc().pending());
  auto opened = co_await open_writable(machine.pc().ring(), std::move(options), patience.stop());
  if (!opened) {
    nodes.give_back(name);
    co_return refuse(patience.stop().asked()
                         ? fmt::format("Could not open node '{}': {}", name, patience.stop().why())
                         : tool_text(opened.error()));
  }
  nodes.add(name, std::move(*opened));
  co_return Json::object();
}

Task<Answer<Json>> delete_node(MachineControl& machine, Arguments arguments) {
  const auto name = arguments.text("node-name");
  if (auto sound = arguments.finish(); !sound) {
    co_return std::unexpected(sound.error());
  }
  const auto* const entry = machine.pc().nodes().find(name);
  if (entry == nullptr && find_drive(machine, name) == nullptr) {
    co_return refuse(fmt::format("Failed to find node with node-name='{}'", name));
  }
  if (entry == nullptr || entry->lent) {
    co_return refuse(fmt::format("Node {} is in use", name));
  }
  auto node = machine.pc().nodes().remove(name);
  const auto closed = co_await node.device->close();
  co_return closed ? Answer<Json>(Json::object()) : Answer<Json>(refuse(closed.error().message));
}

MadeAction make_node_backup_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
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
  const auto drive = idle_drive(machine, claims, device);
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
  if (auto settled = settle_job(claims, **drive, settings); !settled) {
    return std::unexpected(settled.error());
  }
  return std::make_unique<BeginNodeBackup>(machine, **drive, std::move(settings), target, sync);
}

}  // namespace whistler::qmp
