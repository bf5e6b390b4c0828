// blockdev-snapshot-internal-sync and blockdev-snapshot-delete-internal-sync: snapshots inside a qcow2 image.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "block/qcow2/snapshots.hpp"
#include "vmm/monitor/drive_action.hpp"
#include "vmm/monitor/job_arguments.hpp"
#include "vmm/monitor/qmp_media.hpp"

namespace whistler::qmp {
namespace {

/// The image, if it can hold snapshots. Under the machine lock.
Answer<qcow2::Image*> holder(Drive& drive) {
  auto* const image = dynamic_cast<qcow2::Image*>(&drive.image()->image());
  if (image == nullptr) {
    return refuse(fmt::format("Block format '{}' used by device '{}' does not support internal snapshots",
                              drive.description().format, drive.description().id));
  }
  if (image->read_only()) {
    return refuse(fmt::format("Device '{}' is read only", drive.description().id));
  }
  return image;
}

/// The snapshot of that id and name, of which an empty one is any; nothing if there is none.
Task<Answer<std::optional<qcow2::Snapshot>>> find_snapshot(qcow2::Image& image, std::string id,
                                                           std::string name) {
  qcow2::Snapshots snapshots(image);
  const auto list = co_await snapshots.list();
  if (!list) {
    co_return refuse(list.error().message);
  }
  const auto found = std::ranges::find_if(*list, [&](const auto& each) {
    return (id.empty() || each.id == id) && (name.empty() || each.name == name);
  });
  co_return found == list->end() ? std::nullopt : std::optional(*found);
}

class TakeInternal final : public DriveAction {
 public:
  TakeInternal(Drive& drive, qcow2::Snapshot snapshot) : drive_(drive), snapshot_(std::move(snapshot)) {}

  [[nodiscard]] DriveImage* drive() override { return drive_.image(); }
  [[nodiscard]] Task<Answer<void>> prepare(Stop&) override { co_return Answer<void>{}; }

  [[nodiscard]] Task<Answer<void>> freeze() override {
    const auto image = holder(drive_);
    if (!image) {
      co_return std::unexpected(image.error());
    }
    const auto found = co_await find_snapshot(**image, {}, snapshot_.name);
    if (!found) {
      co_return std::unexpected(found.error());
    }
    if (*found) {
      co_return refuse(fmt::format("Snapshot with name '{}' already exists on device '{}'", snapshot_.name,
                                   drive_.description().id));
    }
    qcow2::Snapshots snapshots(**image);
    const auto made = co_await snapshots.create(snapshot_);
    made_ = made.has_value();
    co_return made ? Answer<void>{} : Answer<void>(refuse(made.error().message));
  }

  void commit() override {}

  [[nodiscard]] Task<void> abort() override {
    if (const auto image = holder(drive_); made_ && image) {
      qcow2::Snapshots snapshots(**image);
      static_cast<void>(co_await snapshots.remove(snapshot_.name));
    }
  }

 private:
  Drive& drive_;
  qcow2::Snapshot snapshot_;
  bool made_ = false;
};

Task<Answer<Json>> remove(Drive& drive, std::string id, std::string name) {
  const auto image = holder(drive);
  if (!image) {
    co_return std::unexpected(image.error());
  }
  const auto looked = co_await find_snapshot(**image, id, name);
  if (!looked) {
    co_return std::unexpected(looked.error());
  }
  const auto& found = *looked;
  if (!found) {
    co_return refuse(fmt::format("Snapshot with id '{}' and name '{}' does not exist on device '{}'",
                                 id.empty() ? "(null)" : id, name.empty() ? "(null)" : name,
                                 drive.description().id));
  }
  qcow2::Snapshots snapshots(**image);
  const auto removed = co_await snapshots.remove(found->id);
  if (!removed) {
    co_return refuse(removed.error().message);
  }
  constexpr std::uint64_t kBillion = 1'000'000'000;
  Json info = {{"id", found->id},
               {"name", found->name},
               {"vm-state-size", found->vm_state_size},
               {"date-sec", found->date_seconds},
               {"date-nsec", found->date_nanoseconds},
               {"vm-clock-sec", found->vm_clock_nanoseconds / kBillion},
               {"vm-clock-nsec", found->vm_clock_nanoseconds % kBillion}};
  co_return info;
}

}  // namespace

MadeAction make_internal_snapshot_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  const auto device = arguments.text("device");
  qcow2::Snapshot snapshot;
  snapshot.name = arguments.text("name");
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  if (snapshot.name.empty()) {
    return refuse("Name is empty");
  }
  const auto date = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(date);
  snapshot.date_seconds = static_cast<std::uint32_t>(seconds.count());
  snapshot.date_nanoseconds = static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(date - seconds).count());
  snapshot.vm_clock_nanoseconds = static_cast<std::uint64_t>(machine.pc().timers().clock().now());
  const auto drive = idle_drive(machine, claims, device);
  if (!drive) {
    return std::unexpected(drive.error());
  }
  if (const auto image = holder(**drive); !image) {
    return std::unexpected(image.error());
  }
  return std::make_unique<TakeInternal>(**drive, std::move(snapshot));
}

Task<Answer<Json>> delete_internal_snapshot(MachineControl& machine, Arguments arguments) {
  const auto device = arguments.text("device");
  const auto id = arguments.text_or("id", {});
  const auto name = arguments.text_or("name", {});
  if (auto sound = arguments.finish(); !sound) {
    co_return std::unexpected(sound.error());
  }
  if (id.empty() && name.empty()) {
    co_return refuse("Name or id must be provided");
  }
  DriveClaims claims(machine.pc().jobs());
  const auto drive = idle_drive(machine, claims, device);
  if (!drive) {
    co_return std::unexpected(drive.error());
  }
  auto removed = co_await remove(**drive, id, name);
  co_return removed;
}

}  // namespace whistler::qmp
