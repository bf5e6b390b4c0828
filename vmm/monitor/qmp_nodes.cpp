#include "vmm/monitor/qmp_nodes.hpp"

#include <fmt/format.h>

#include "vmm/monitor/qmp_media.hpp"

namespace whistler::qmp {
namespace {

Task<Result<OpenNode>> open_writable(HostedPc& pc, Options options, Stop& stop) {
  NodeName name;
  name.options = std::move(options);
  NodeFlags flags;
  flags.read_only = false;
  flags.inline_writes = false;
  flags.stop = &stop;
  flags.let_go = &pc.nodes().servers();
  auto opened = co_await open_node_task(pc.ring(), std::move(name), flags);
  co_return opened;
}

/// Refuses a child that is the name of another node.
Answer<void> check_children(const Json& options, const std::string& path = {}) {
  for (const auto* key : {"file", "backing", "data-file", "image"}) {
    const auto child = options.find(key);
    if (child == options.end()) {
      continue;
    }
    if (child->is_string() && !child->get<std::string>().empty()) {
      return refuse(
          fmt::format("'{}{}': a reference to node '{}' is not supported: describe the image in its place",
                      path, key, child->get<std::string>()));
    }
    if (child->is_object()) {
      if (auto sound = check_children(*child, fmt::format("{}{}.", path, key)); !sound) {
        return sound;
      }
    }
  }
  return {};
}

}  // namespace

Task<Answer<Json>> add_node(MachineControl& machine, Arguments arguments) {
  auto options = arguments.rest();
  for (const auto* key : {"driver", "node-name"}) {
    if (!options.contains(key) || !options[key].is_string()) {
      co_return refuse(fmt::format("Parameter '{}' is missing", key));
    }
  }
  if (auto sound = check_children(options); !sound) {
    co_return std::unexpected(sound.error());
  }
  const auto name = options["node-name"].get<std::string>();
  auto& nodes = machine.pc().nodes();
  if (find_drive(machine, name) != nullptr || !nodes.reserve(name)) {
    co_return refuse(fmt::format("Duplicate nodes with node-name='{}'", name));
  }
  PendingWork::Patience patience(machine.pc().pending());
  auto opened = co_await open_writable(machine.pc(), std::move(options), patience.stop());
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

}  // namespace whistler::qmp
