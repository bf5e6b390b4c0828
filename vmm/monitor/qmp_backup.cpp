// drive-backup: begins a copy of a drive as it is at this moment.
#include <unistd.h>

#include <array>

#include "block/jobs/backup.hpp"
#include "vmm/monitor/copy_target.hpp"
#include "vmm/monitor/drive_action.hpp"
#include "vmm/monitor/job_arguments.hpp"

namespace whistler::qmp {
namespace {

class BeginBackup final : public DriveAction {
 public:
  BeginBackup(MachineControl& machine, Drive& drive, JobSettings settings, CopyTarget target)
      : machine_(machine), drive_(drive), settings_(std::move(settings)), target_(std::move(target)) {}

  [[nodiscard]] DriveImage* drive() override { return drive_.image(); }

  [[nodiscard]] Task<Answer<void>> prepare(Stop& stop) override {
    auto opened = co_await target_.open(machine_.pc().ring(), drive_, stop);
    if (opened) {
      opened_ = std::move(*opened);
    }
    co_return opened ? Answer<void>{} : Answer<void>(std::unexpected(opened.error()));
  }

  [[nodiscard]] Task<Answer<void>> freeze() override { co_return Answer<void>{}; }

  void commit() override {
    auto work =
        std::make_unique<Backup>(*drive_.image(), std::move(opened_.image), target_.sync, opened_.cluster);
    machine_.pc().jobs().start(std::move(settings_), std::move(work));
  }

  [[nodiscard]] Task<void> abort() override {
    if (opened_.image != nullptr) {
      static_cast<void>(co_await opened_.image->close());
      if (target_.make) {
        ::unlink(absolute_name(target_.file).c_str());
      }
    }
  }

 private:
  MachineControl& machine_;
  Drive& drive_;
  JobSettings settings_;
  CopyTarget target_;
  Target opened_;
};

}  // namespace

MadeAction make_backup_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  const auto device = arguments.text("device");
  auto settings = take_job_settings(arguments);
  settings.on_source_error = take_error_policy(arguments, "on-source-error");
  settings.on_target_error = take_error_policy(arguments, "on-target-error");
  auto target = CopyTarget::take(arguments);
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
  if (auto settled = settle_job(claims, **drive, settings); !settled) {
    return std::unexpected(settled.error());
  }
  target.settle(**drive);
  return std::make_unique<BeginBackup>(machine, **drive, std::move(settings), std::move(target));
}

}  // namespace whistler::qmp
