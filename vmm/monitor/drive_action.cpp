#include "vmm/monitor/drive_action.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "vmm/monitor/qmp_bitmaps.hpp"

namespace whistler::qmp {
namespace {

using Actions = std::vector<std::unique_ptr<DriveAction>>;

/// The action that makes a transaction fail, for those who want to see what that is like.
class Abort final : public DriveAction {
 public:
  [[nodiscard]] DriveImage* drive() override { return nullptr; }
  [[nodiscard]] Task<Answer<void>> prepare(Stop&) override {
    co_return refuse("Transaction aborted using Abort action");
  }
  [[nodiscard]] Task<Answer<void>> freeze() override { co_return Answer<void>{}; }
  void commit() override {}
  [[nodiscard]] Task<void> abort() override { co_return; }
};

/// All of them, or none.
Task<Answer<Json>> run(MachineControl& machine, Actions actions) {
  Answer<void> done;
  std::size_t prepared = 0;
  {
    PendingWork::Patience patience(machine.pc().pending());
    for (; prepared < actions.size() && done; ++prepared) {
      done = co_await actions[prepared]->prepare(patience.stop());
    }
  }
  std::vector<DriveImage*> held;
  for (std::size_t i = 0; i < actions.size() && done; ++i) {
    auto* const drive = actions[i]->drive();
    if (drive != nullptr && std::ranges::find(held, drive) == held.end()) {
      co_await drive->hold();
      held.push_back(drive);
    }
  }
  for (std::size_t i = 0; i < actions.size() && done; ++i) {
    done = co_await actions[i]->freeze();
  }
  for (std::size_t i = 0; i < prepared; ++i) {
    if (done) {
      actions[i]->commit();
    } else {
      co_await actions[i]->abort();
    }
  }
  for (auto* const drive : held) {
    drive->release();
  }
  co_return done ? Answer<Json>(Json::object()) : Answer<Json>(std::unexpected(done.error()));
}

MadeAction make_abort(MachineControl&, DriveClaims&, Arguments& arguments) {
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  return std::make_unique<Abort>();
}

/// What a transaction may consist of.
struct Kind {
  std::string_view type;
  MakeAction make;
  bool grouped = false;  ///< whether it starts a job that can be completed with others
};
constexpr auto kActions = std::to_array<Kind>({
    {"blockdev-snapshot-sync", make_snapshot_action},
    {"blockdev-snapshot-internal-sync", make_internal_snapshot_action},
    {"drive-backup", make_backup_action, true},
    {"blockdev-backup", make_node_backup_action, true},
    {"block-dirty-bitmap-add", make_bitmap_add_action},
    {"block-dirty-bitmap-remove", make_bitmap_remove_action},
    {"block-dirty-bitmap-clear", make_bitmap_clear_action},
    {"block-dirty-bitmap-enable", make_bitmap_enable_action},
    {"block-dirty-bitmap-disable", make_bitmap_disable_action},
    {"block-dirty-bitmap-merge", make_bitmap_merge_action},
    {"abort", make_abort, true},
});

/// One member of the list that a transaction is given.
MadeAction make_action(MachineControl& machine, DriveClaims& claims, const Json& one, bool grouped) {
  if (!one.is_object()) {
    return refuse("Invalid parameter type for 'actions[]', expected: object");
  }
  Arguments action(one);
  const auto type = action.text("type");
  Arguments data(action.object("data"));
  if (auto sound = action.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  const auto kind = std::ranges::find(kActions, type, &Kind::type);
  if (kind == kActions.end()) {
    return refuse(fmt::format("Parameter 'type' does not accept value '{}'", type));
  }
  if (grouped && !kind->grouped) {
    return refuse(
        fmt::format("Action '{}' does not support transaction property completion-mode = grouped", type));
  }
  return kind->make(machine, claims, data);
}

}  // namespace

Task<Answer<Json>> run_action(MachineControl& machine, MakeAction make, Arguments arguments) {
  DriveClaims claims(machine.pc().jobs());
  auto made = make(machine, claims, arguments);
  if (!made) {
    co_return std::unexpected(made.error());
  }
  Actions actions;
  actions.push_back(std::move(*made));
  auto done = co_await run(machine, std::move(actions));
  co_return done;
}

Task<Answer<Json>> transaction(MachineControl& machine, Arguments arguments) {
  const auto wanted = arguments.list("actions");
  static constexpr std::array<std::string_view, 2> kModes = {"individual", "grouped"};
  Arguments properties(arguments.has("properties") ? arguments.object("properties") : Json::object());
  const bool grouped = properties.word_or("completion-mode", kModes, 0) == 1;
  if (auto sound = arguments.finish(); !sound) {
    co_return std::unexpected(sound.error());
  }
  if (auto sound = properties.finish(); !sound) {
    co_return std::unexpected(sound.error());
  }
  DriveClaims claims(machine.pc().jobs());
  if (grouped) {
    claims.group_jobs();
  }
  Actions actions;
  for (const auto& one : wanted) {
    auto made = make_action(machine, claims, one, grouped);
    if (!made) {
      co_return std::unexpected(made.error());
    }
    actions.push_back(std::move(*made));
  }
  auto done = co_await run(machine, std::move(actions));
  co_return done;
}

}  // namespace whistler::qmp
