// blockdev-snapshot-sync: from now on the guest writes to a new file, over the old one.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "block/jobs/snapshot.hpp"
#include "block/jobs/targets.hpp"
#include "vmm/monitor/drive_action.hpp"
#include "vmm/monitor/job_arguments.hpp"
#include "vmm/monitor/qmp_media.hpp"

namespace whistler::qmp {
namespace {

class Snapshot final : public DriveAction {
 public:
  Snapshot(Ring& ring, Drive& drive, std::string file, std::string format, bool make)
      : ring_(ring), drive_(drive), file_(std::move(file)), format_(std::move(format)), make_(make) {}

  [[nodiscard]] DriveImage* drive() override { return drive_.image(); }

  [[nodiscard]] Task<Answer<void>> prepare(Stop& stop) override {
    const auto path = absolute_name(file_);
    if (make_) {
      const auto below = layers_of(drive_)[0];
      NewFile file;
      file.path = path;
      file.format = format_;
      file.size = drive_.image()->size();
      file.backing_file = below.file;
      file.backing_format = below.format;
      file.stop = &stop;
      auto made = co_await make_image(ring_, std::move(file));
      if (!made) {
        co_return could_not_create(made.error(), stop);
      }
      made_ = true;
    }
    auto options = drive_.open_options(path, format_);
    options.stop = &stop;
    auto target = co_await open_target(ring_, std::move(options));
    if (!target) {
      co_return could_not_open(file_, target.error(), stop);
    }
    auto* const image = dynamic_cast<qcow2::Image*>(target->image.get());
    if (image == nullptr) {
      static_cast<void>(co_await target->image->close());
      co_return refuse("The overlay does not support backing images");
    }
    target->image.release();
    overlay_.reset(image);
    if (overlay_->size() != drive_.image()->size()) {
      co_return refuse("The overlay has another size than the disk");
    }
    co_return Answer<void>{};
  }

  [[nodiscard]] Task<Answer<void>> freeze() override {
    auto frozen = co_await freeze_image(*drive_.image());
    frozen_ = frozen.has_value();
    co_return frozen ? Answer<void>{} : Answer<void>(refuse(frozen.error().message));
  }

  void commit() override {
    const auto path = overlay_->name();
    slide_in(*drive_.image(), std::move(overlay_));
    drive_.renamed(path, format_);
  }

  [[nodiscard]] Task<void> abort() override {
    if (frozen_) {
      static_cast<void>(co_await thaw_image(*drive_.image()));
    }
    if (overlay_ != nullptr) {
      static_cast<void>(co_await overlay_->close());
    }
    if (made_) {
      ::unlink(absolute_name(file_).c_str());
    }
  }

 private:
  Ring& ring_;
  Drive& drive_;
  std::string file_, format_;
  bool make_;
  bool made_ = false, frozen_ = false;
  std::unique_ptr<qcow2::Image> overlay_;
};

}  // namespace

MadeAction make_snapshot_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  static constexpr std::array<std::string_view, 2> kModes = {"absolute-paths", "existing"};
  const auto device = arguments.text_or("device", {});
  const auto node = arguments.text_or("node-name", {});
  const auto file = arguments.text("snapshot-file");
  const auto format = arguments.text_or("format", "qcow2");
  const bool make = arguments.word_or("mode", kModes, 0) == 0;
  static_cast<void>(arguments.text_or("snapshot-node-name", {}));  // a drive's top node has the drive's name
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  const auto drive = idle_drive(machine, claims, device, node);
  if (!drive) {
    if (const auto* found = find_drive(machine, device.empty() ? node : device);
        found != nullptr && found->description().file.empty()) {
      return refuse(fmt::format("Device '{}' has no medium", found->description().id));
    }
    return std::unexpected(drive.error());
  }
  if ((*drive)->image()->read_only()) {
    return refuse(fmt::format("Device '{}' is read only", (*drive)->description().id));
  }
  if (format != "qcow2") {
    return format == "raw" ? refuse(fmt::format("Backing file not supported for file format '{}'", format))
                           : refuse(fmt::format("Unknown file format '{}'", format));
  }
  return std::make_unique<Snapshot>(machine.pc().ring(), **drive, file, format, make);
}

}  // namespace whistler::qmp
