// drive-backup and blockdev-backup: the beginning of a copy of a drive as it is at this moment.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "block/jobs/backup.hpp"
#include "block/jobs/packed_target.hpp"
#include "block/qcow2/image.hpp"
#include "vmm/monitor/copy_target.hpp"
#include "vmm/monitor/drive_action.hpp"
#include "vmm/monitor/job_arguments.hpp"
#include "vmm/monitor/qmp_media.hpp"

namespace whistler::qmp {
namespace {

constexpr std::array<std::string_view, 5> kSyncs = {"full", "top", "none", "incremental", "bitmap"};
constexpr std::array<std::string_view, 3> kBitmapModes = {"on-success", "never", "always"};

/// Which bitmap is used, and for what.
struct BitmapRequest {
  std::size_t sync;  ///< of kSyncs
  std::string name;
  std::optional<std::size_t> mode;  ///< of kBitmapModes

  explicit BitmapRequest(Arguments& arguments) {
    if (!arguments.has("sync")) {
      arguments.fail("Parameter 'sync' is missing");
    }
    sync = arguments.word_or("sync", kSyncs, 0);
    name = arguments.text_or("bitmap", {});
    if (arguments.has("bitmap-mode")) {
      mode = arguments.word_or("bitmap-mode", kBitmapModes, 0);
    }
    if (auto sound = check(); !sound) {
      arguments.fail(sound.error().description);
    }
  }
  [[nodiscard]] bool selects() const { return sync >= 3; }
  [[nodiscard]] bool incremental() const { return sync == 3; }
  [[nodiscard]] CopySync copy() const { return selects() ? CopySync::kFull : static_cast<CopySync>(sync); }

  [[nodiscard]] Answer<void> check() const {
    const auto word = kSyncs[sync];
    if (name.empty()) {
      if (selects()) {
        return refuse(fmt::format("must provide a valid bitmap name for '{}' sync mode", word));
      }
      return mode ? Answer<void>(refuse("Cannot specify bitmap sync mode without a bitmap")) : Answer<void>{};
    }
    if (!mode && !incremental()) {
      return refuse("Bitmap sync mode must be given when providing a bitmap");
    }
    if (incremental() && mode.value_or(0) != 0) {
      return refuse(fmt::format("Bitmap sync mode must be 'on-success' when using sync mode '{}'", word));
    }
    if (copy() == CopySync::kNone) {
      return refuse(fmt::format("sync mode '{}' does not produce meaningful bitmap outputs", word));
    }
    if (!selects() && mode == std::size_t{1}) {
      return refuse(fmt::format(
          "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '{}'", word));
    }
    return {};
  }

  /// The bitmap of the drive, if one is used.
  [[nodiscard]] Answer<BackupBitmap> find(Drive& drive) const {
    BackupBitmap found;
    if (name.empty()) {
      return found;
    }
    found.bitmap = drive.bitmaps().find(name);
    found.mode = static_cast<BackupBitmap::Mode>(mode.value_or(0));
    found.selects = selects();
    if (!found.bitmap) {
      return refuse(fmt::format("Bitmap '{}' could not be found", name));
    }
    return found;
  }
};

/// What both commands are asked.
struct BackupRequest {
  std::string device;
  JobSettings settings;
  BitmapRequest bitmap_request;
  BackupBitmap bitmap = {};
  bool compress = false;

  explicit BackupRequest(Arguments& arguments)
      : device(arguments.text("device")), settings(take_job_settings(arguments)), bitmap_request(arguments) {
    settings.on_source_error = take_error_policy(arguments, "on-source-error");
    settings.on_target_error = take_error_policy(arguments, "on-target-error");
    static_cast<void>(arguments.text_or("filter-node-name", {}));  // there is no node for it
    compress = arguments.flag_or("compress", false);
  }
  /// The drive, claimed, once all arguments were taken.
  [[nodiscard]] Answer<Drive*> settle(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
    if (auto sound = arguments.finish(); !sound) {
      return std::unexpected(sound.error());
    }
    const auto drive = idle_drive(machine, claims, device);
    if (!drive) {
      return drive;
    }
    auto used = bitmap_request.find(**drive);
    if (!used) {
      return std::unexpected(used.error());
    }
    bitmap = std::move(*used);
    if (auto settled = settle_job(claims, **drive, settings); !settled) {
      return std::unexpected(settled.error());
    }
    return drive;
  }
};

class BeginBackup final : public DriveAction {
 public:
  /// To a file that is yet to be opened.
  BeginBackup(MachineControl& machine, Drive& drive, BackupRequest request, CopyTarget file)
      : machine_(machine),
        drive_(drive),
        request_(std::move(request)),
        sync_(file.sync),
        file_(std::move(file)) {}
  /// To an image that is open.
  BeginBackup(MachineControl& machine, Drive& drive, BackupRequest request, CopySync sync, Target target)
      : machine_(machine),
        drive_(drive),
        request_(std::move(request)),
        sync_(sync),
        target_(std::move(target)) {}

  [[nodiscard]] DriveImage* drive() override { return drive_.image(); }

  [[nodiscard]] Task<Answer<void>> prepare(Stop& stop) override {
    if (file_) {
      auto opened = co_await file_->open(machine_.pc().ring(), drive_, stop);
      if (!opened) {
        co_return std::unexpected(opened.error());
      }
      target_ = std::move(*opened);
    }
    if (request_.compress && !can_be_packed(target_.qcow2)) {
      co_return refuse(fmt::format("Compression is not supported for this drive {}", target_.image->name()));
    }
    co_return Answer<void>{};
  }

  [[nodiscard]] Task<Answer<void>> freeze() override { co_return Answer<void>{}; }

  void commit() override {
    auto image = std::move(target_.image);
    if (request_.compress) {
      image = std::make_unique<PackedTarget>(machine_.pc().ring(), std::move(image), *target_.qcow2);
    }
    auto work = std::make_unique<Backup>(*drive_.image(), std::move(image), sync_, target_.cluster,
                                         std::move(request_.bitmap));
    machine_.pc().jobs().start(std::move(request_.settings), std::move(work));
  }

  [[nodiscard]] Task<void> abort() override {
    if (target_.image != nullptr) {
      static_cast<void>(co_await target_.image->close());
      target_.image.reset();
      if (file_ && file_->make) {
        ::unlink(absolute_name(file_->file).c_str());
      }
    }
  }

 private:
  MachineControl& machine_;
  Drive& drive_;
  BackupRequest request_;
  CopySync sync_;
  std::optional<CopyTarget> file_;
  Target target_;
};

/// Lends a node that can be the target of a backup of a drive of `size` bytes.
Answer<Target> lend_target(BlockNodes& nodes, const std::string& name, std::uint64_t size) {
  const auto* const node = nodes.find(name);
  if (node == nullptr) {
    return no_such_drive(name, name);
  }
  if (node->lent) {
    return refuse(fmt::format("Node '{}' is busy: it is the target of another job", name));
  }
  if (node->open.device->read_only()) {
    return refuse(fmt::format("Node '{}' is read only", name));
  }
  if (node->open.device->size() != size) {
    return refuse("Source and target image have different sizes");
  }
  Target target;
  target.qcow2 = node->open.node->qcow2;
  target.cluster = target.qcow2 != nullptr ? target.qcow2->header().geometry().cluster_size() : 0;
  target.image = nodes.lend(name);
  return target;
}

}  // namespace

MadeAction make_backup_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  BackupRequest request(arguments);
  auto target = CopyTarget::take(arguments, request.bitmap_request.copy());
  const auto drive = request.settle(machine, claims, arguments);
  if (!drive) {
    return std::unexpected(drive.error());
  }
  target.settle(**drive);
  return std::make_unique<BeginBackup>(machine, **drive, std::move(request), std::move(target));
}

MadeAction make_node_backup_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  BackupRequest request(arguments);
  const auto name = arguments.text("target");
  auto sync = request.bitmap_request.copy();
  const auto drive = request.settle(machine, claims, arguments);
  if (!drive) {
    return std::unexpected(drive.error());
  }
  if (sync == CopySync::kTop && layers_of(**drive).size() == 1) {
    sync = CopySync::kFull;
  }
  auto target = lend_target(machine.pc().nodes(), name, (*drive)->image()->size());
  if (!target) {
    return std::unexpected(target.error());
  }
  return std::make_unique<BeginBackup>(machine, **drive, std::move(request), sync, std::move(*target));
}

}  // namespace whistler::qmp
