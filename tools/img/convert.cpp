// img convert: copies disks, or a snapshot of one, into an image of another kind.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <thread>

#include "block/qcow2/image.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/convert_bitmaps.hpp"
#include "tools/img/convert_settings.hpp"
#include "tools/img/copier.hpp"
#include "tools/img/messages.hpp"
#include "tools/img/target.hpp"

namespace whistler::tools {

namespace {

/// Takes away what was made if the work fails: a half copy under the final name would pass for a whole one.
class HalfFile {
 public:
  explicit HalfFile(std::string path) : path_(std::move(path)) {}
  HalfFile(const HalfFile&) = delete;
  HalfFile& operator=(const HalfFile&) = delete;
  ~HalfFile() {
    struct stat status{};
    if (!path_.empty() && ::lstat(path_.c_str(), &status) == 0 && S_ISREG(status.st_mode)) {
      ::unlink(path_.c_str());
    }
  }
  void keep() { path_.clear(); }

 private:
  std::string path_;
};

class Convert {
 public:
  Convert(const Call& call, Ring& ring, const ConvertSettings& settings)
      : call_(call), ring_(ring), settings_(settings), progress_(settings.progress && !settings.quiet) {}

  int run() {
    if (!open_sources() || !check_target()) {
      return 1;
    }
    auto name = settings_.target;
    name.gives_space_back = settings_.min_zero != 0;
    if (!settings_.skip_create) {
      const auto plan = plan_of_target();
      name.more = target_keys(plan);
      const auto created = create_target(ring_, plan);
      if (!created) {
        complain(call_, fmt::format("{}: error while converting {}: {}", settings_.target.name,
                                    settings_.target.format, tool_text(created.error())));
        return 1;
      }
    }
    HalfFile unfinished(settings_.skip_create ? std::string() : settings_.target.name);
    auto flags = settings_.target_flags;
    flags.read_only = false;
    auto target = open_argument(call_, ring_, name, flags);
    if (!target) {
      return 1;
    }
    if (settings_.skip_create && target->device->size() < total_) {
      complain(call_, "output file is smaller than input file");
      return 1;
    }
    if (has_backing() && settings_.target_is_zero) {
      complain(call_, "Cannot use --target-is-zero when the destination image has a backing file");
      return 0;  // as QEMU ends
    }
    if (settings_.bitmaps && !can_hold_bitmaps(*target)) {
      complain(call_, fmt::format("Format driver '{}' does not support bitmaps", target->node->driver));
      return 1;
    }
    if (!copy(*target) ||
        (settings_.bitmaps && !copy_bitmaps(call_, ring_, *sources_[0].node->qcow2, *target->node->qcow2))) {
      return 1;
    }
    if (!close_image(call_, ring_, *target)) {
      return 1;
    }
    unfinished.keep();
    progress_.show(100);
    return 0;
  }

 private:
  [[nodiscard]] bool has_backing() const { return settings_.backing_file.has_value(); }

  [[nodiscard]] NewTarget plan_of_target() const {
    return {.path = settings_.target.name,
            .format = settings_.target.format,
            .size = total_,
            .options = settings_.options,
            .size_is_given = true,
            .backing_file = settings_.backing_file,
            .backing_format = settings_.backing_format};
  }

  bool open_sources() {
    auto flags = settings_.source_flags;
    flags.read_only = true;
    for (const auto& name : settings_.sources) {
      auto image = open_argument(call_, ring_, {name, settings_.source_format, settings_.image_opts}, flags);
      if (!image) {
        return false;
      }
      sources_.push_back(std::move(*image));
    }
    if (settings_.snapshot && !show_snapshot()) {
      return false;
    }
    for (const auto& source : sources_) {
      total_ += source.device->size();
    }
    return true;
  }

  bool show_snapshot() {
    if (sources_.size() > 1) {
      complain(call_, "No support for concatenating multiple snapshot");
      return false;
    }
    return show_wanted_snapshot(call_, ring_, *sources_[0].node, *settings_.snapshot);
  }

  bool refuse(const std::string& text) const {
    complain(call_, text);
    return false;
  }

  [[nodiscard]] static bool can_hold_bitmaps(const OpenNode& image) {
    return image.node->qcow2 != nullptr && image.node->qcow2->header().version >= 3;
  }

  /// What can be known to be wrong before anything is made.
  bool check_target() {
    const auto& format = settings_.target.format;
    if (!settings_.skip_create) {
      for (const auto& source : sources_) {
        if (!spares_source(call_, *source.node, settings_.target.name)) {
          return false;
        }
      }
      std::vector<OptionSpec> specs;
      if (const auto values = read_target_options(plan_of_target(), specs); !values) {
        return refuse(tool_text(values.error()));
      }
      if (settings_.backing_option && format == "raw") {
        return refuse(fmt::format("Backing file not supported for file format '{}'", format));
      }
      if (settings_.backing_format && format == "raw") {
        return refuse(fmt::format("Backing file format not supported for file format '{}'", format));
      }
    }
    if (has_backing() && sources_.size() > 1) {
      return refuse(
          "Having a backing file for the target makes no sense when concatenating multiple input images");
    }
    if (!settings_.skip_create) {
      if (has_backing() && !settings_.backing_format) {
        return refuse("Use of backing file requires explicit backing format");
      }
    }
    if (settings_.compress && !settings_.skip_create) {
      if (format != "qcow2") {
        return refuse("Compression not supported for this file format");
      }
      if (settings_.preallocated) {
        return refuse("Compression and preallocation not supported at the same time");
      }
    }
    if (settings_.bitmaps) {
      if (sources_.size() > 1) {
        return refuse("Copying bitmaps only possible with single source");
      }
      if (!can_hold_bitmaps(sources_[0])) {
        return refuse("Source lacks bitmap support");
      }
      if (!settings_.skip_create && format != "qcow2") {
        return refuse(fmt::format("Format driver '{}' does not support bitmaps", format));
      }
      if (!check_bitmaps(call_, ring_, *sources_[0].node->qcow2, settings_.skip_broken_bitmaps)) {
        return false;
      }
    }
    return true;
  }

  /// Whether the target shows zeroes wherever nothing is written.
  [[nodiscard]] bool shows_zeroes(const OpenNode& target) const {
    if (settings_.target_is_zero) {
      return true;
    }
    if (target.node->qcow2 != nullptr && target.node->qcow2->encrypted() && target.device->size() != 0) {
      // Clusters allocated in advance hold zeroes, which decrypt to something else.
      const auto start = sync_wait(ring_, target.device->block_status(0, 1));
      if (!start || start->data) {
        return false;
      }
    }
    const auto* file = target.node->lowest_file();
    const auto* qcow2 = target.node->qcow2;
    const bool new_and_empty = (qcow2 != nullptr && !qcow2->header().geometry().external_data) ||
                               (file != nullptr && !file->is_block_device());
    return !settings_.skip_create && settings_.min_zero != 0 && !has_backing() && new_and_empty;
  }

  bool copy(OpenNode& target) {
    CopyOptions options{.min_zero = settings_.min_zero,
                        .target_zero = shows_zeroes(target),
                        .target_fresh = !settings_.skip_create && !settings_.preallocated,
                        .target_has_backing = has_backing(),
                        .in_order = !settings_.any_order || settings_.compress,
                        .workers = settings_.workers,
                        .salvage = settings_.salvage,
                        .detect_zeroes = !settings_.copy_offload,
                        .bytes_per_second = settings_.bytes_per_second};
    options.alignment = std::max<std::uint64_t>(
        std::bit_floor(std::max<std::uint64_t>(settings_.min_zero, 512)), target.device->request_alignment());
    if (const auto* image = target.node->qcow2; image != nullptr) {
      options.layout = {
          {.cluster = image->header().geometry().cluster_size(), .stretch = image->slice_coverage()}};
      if (!image->header().geometry().external_data) {
        options.layout->growth_begin = [image] { return image->growth_begin(); };
      }
    } else if (target.node->driver == "raw") {
      options.layout = CopyOptions::Layout{};
    }
    if (auto* below = target.device->backing(); has_backing() && below != nullptr) {
      options.target_backing_bytes = below->size();
    }
    std::unique_ptr<Packer> packer;
    if (settings_.compress) {
      if (target.node->qcow2 == nullptr) {
        return refuse("Compression not supported for this file format");
      }
      const auto threads = std::max(1U, std::thread::hardware_concurrency());
      auto made = Packer::create(ring_, target.node->qcow2->header().compression, threads);
      if (!made) {
        return refuse(made.error().message);
      }
      packer = std::move(*made);
      options.packed_target = target.node->qcow2;
      options.packer = packer.get();
      options.workers = std::max(options.workers, threads);
    }
    std::vector<CopySource> sources;
    for (const auto& source : sources_) {
      sources.push_back({.device = source.device.get(),
                         .bytes = source.device->size(),
                         .base = has_backing() ? source.device->backing() : nullptr});
    }
    Copier copier(std::move(sources), *target.device, options, progress_, [this](const std::string& text) {
      if (!settings_.quiet) {
        complain(call_, "warning: " + text);
      }
    });
    const auto done = sync_wait(ring_, copier.run());
    if (!done) {
      return refuse(done.error().message);
    }
    return true;
  }

  const Call& call_;
  Ring& ring_;
  const ConvertSettings& settings_;
  Progress progress_;
  std::vector<OpenImage> sources_;
  std::uint64_t total_ = 0;
};

}  // namespace

int img_convert(const Call& call) {
  ConvertSettings settings;
  if (const auto status = read_convert_settings(call, settings)) {
    return *status;
  }
  const auto ring = make_ring(call);
  return ring ? Convert(call, *ring, settings).run() : 1;
}

}  // namespace whistler::tools
